"""Authentication: the actor that an access token stands for, read from the log and cached for a few seconds."""

import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from uuid import UUID

import msgspec
from cachetools import TTLCache

from application.ports import EventStore
from application.services import Claims
from application.signed_downloads import Holder
from domain import registration, session, user
from domain.access import Actor
from domain.errors import NotAuthenticated
from domain.registration import Registration
from domain.session import Session
from domain.user import User

CACHE_SECONDS = 5.0  # another process may accept a revoked session or a lost role for this long
MAX_CACHED = 10_000
PENDING = "pending"  # the kind of the actor of a registration whose address is not verified yet


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated actor: a user with `session_id` and `signed_in_at`, or a service with `expires_at`, when its token expires."""

    actor: Actor
    session_id: UUID | None = None
    signed_in_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def holder(self) -> Holder:
        """The session or service that signed addresses are issued to."""
        if self.session_id is not None:
            return Holder(self.session_id)
        assert self.expires_at is not None
        return Holder(self.actor.id, until=int(self.expires_at.timestamp()))


def signed_in(session_id: UUID, log: EventStore) -> tuple[Session, User | Registration]:
    """The session, and its user or the open registration whose password started it. Blocks.

    Raises NotAuthenticated if the session has ended or its user may not sign in, Unavailable.
    """
    found = log.load(session_id, session.evolve)
    if found is None or found.revoked:
        raise NotAuthenticated("Invalid token")
    account = signing_in(found.user_id, log)
    if isinstance(account, User) and account.ended(found.started_at):
        raise NotAuthenticated("Invalid token")
    return found, account


def signing_in(user_id: UUID, log: EventStore) -> User | Registration:
    """The account or the open registration with this id. Raises NotAuthenticated if it may not sign in."""
    account = log.load(user_id, user.evolve)
    if account is not None and account.may_sign_in:
        return account
    pending = log.load(user_id, registration.evolve) if account is None else None
    if pending is None or not pending.is_open:
        raise NotAuthenticated("User disabled")
    return pending


def actor_of(account: User | Registration) -> Actor:
    if isinstance(account, User):
        return Actor(id=account.id, role=account.role)
    return Actor(id=account.id, kind=PENDING)


class IdentityCache:
    """Authenticates claims, with a cache of at most `max_cached` sessions for `seconds`. Thread-safe."""

    def __init__(
        self,
        log: EventStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = CACHE_SECONDS,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._log = log
        self._by_session: TTLCache[UUID, Identity] = TTLCache(max_cached, seconds, timer=clock)
        self._lock = Lock()
        self._generation = 0  # increases with each `forget`: identities loaded before may be outdated

    def cached(self, claims: Claims) -> Identity | None:
        """The identity of verified claims if it is known without a lookup: that of a service, or of a cached session."""
        if claims.session_id is None:
            actor = Actor(id=claims.subject, kind="service", scopes=claims.scopes)
            return Identity(actor=actor, expires_at=claims.expires_at)
        identity = self.cached_in(claims.session_id)
        return identity if identity and identity.actor.id == claims.subject else None

    def authenticate(self, claims: Claims) -> Identity:
        """The identity of verified claims. Blocks. Raises NotAuthenticated (session ended, or user may not sign in) and Unavailable."""
        if claims.session_id is None:
            return self.cached(claims)  # type: ignore[return-value]
        identity = self.signed_in(claims.session_id)
        if identity.actor.id != claims.subject:
            raise NotAuthenticated("Invalid token")
        return identity

    def cached_in(self, session_id: UUID) -> Identity | None:
        """The cached identity of a session, or None."""
        with self._lock:
            return self._by_session.get(session_id)

    def signed_in(self, session_id: UUID) -> Identity:
        """The identity of a session. Blocks. Raises NotAuthenticated if it has ended or its user may not sign in, Unavailable."""
        if (known := self.cached_in(session_id)) is not None:
            return known
        generation = self._generation
        found, account = signed_in(session_id, self._log)
        identity = Identity(actor=actor_of(account), session_id=found.id, signed_in_at=found.started_at)
        self._cache(identity, generation)
        return identity

    def forget(self, user_id: UUID) -> None:
        """Drop the user's cached identities. To be called after each change of the user's rights or sessions."""
        with self._lock:
            self._generation += 1
            for session_id in [known for known, identity in self._by_session.items() if identity.actor.id == user_id]:
                self._by_session.pop(session_id, None)

    def _cache(self, identity: Identity, generation: int) -> None:
        assert identity.session_id is not None
        with self._lock:
            if self._generation == generation:
                self._by_session[identity.session_id] = identity
