"""Authentication: the actor of an access token, as the log knows it; cached for a few seconds."""

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
from domain import session, user
from domain.access import Actor
from domain.errors import NotAuthenticated
from domain.session import Session
from domain.user import User

CACHE_SECONDS = 5.0  # for which another process may still accept a revoked session or a lost role
MAX_CACHED = 10_000


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`session_id` and `signed_in_at` are a user's; `expires_at`, the end of its token, is a service's."""

    actor: Actor
    session_id: UUID | None = None
    signed_in_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def holder(self) -> Holder:
        """To whom signed addresses are given."""
        if self.session_id is not None:
            return Holder(self.session_id)
        assert self.expires_at is not None
        return Holder(self.actor.id, until=int(self.expires_at.timestamp()))


def signed_in(session_id: UUID, log: EventStore) -> tuple[Session, User]:
    """The session and whose it is. Blocks. Raises NotAuthenticated when it has ended, or its user may not act; Unavailable."""
    found = log.load(session_id, session.evolve)
    if found is None or found.revoked:
        raise NotAuthenticated("Invalid token")
    account = log.load(found.user_id, user.evolve)
    if account is None or not account.may_sign_in:
        raise NotAuthenticated("User disabled")
    return found, account


class IdentityCache:
    """Threads may share it."""

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
        self._generation = 0  # rises with each `forget`: what was loaded before may be out of date

    def cached(self, claims: Claims) -> Identity | None:
        """Without looking anything up."""
        if claims.session_id is None:
            actor = Actor(id=claims.subject, kind="service", scopes=claims.scopes)
            return Identity(actor=actor, expires_at=claims.expires_at)
        identity = self.cached_in(claims.session_id)
        return identity if identity and identity.actor.id == claims.subject else None

    def authenticate(self, claims: Claims) -> Identity:
        """Blocks. Raises NotAuthenticated when the session has ended, or its user may not act; Unavailable."""
        if claims.session_id is None:
            return self.cached(claims)  # type: ignore[return-value]
        identity = self.signed_in(claims.session_id)
        if identity.actor.id != claims.subject:
            raise NotAuthenticated("Invalid token")
        return identity

    def cached_in(self, session_id: UUID) -> Identity | None:
        """Who signed in to a session, without looking anything up."""
        with self._lock:
            return self._by_session.get(session_id)

    def signed_in(self, session_id: UUID) -> Identity:
        """Who signed in to a session. Blocks. Raises NotAuthenticated when it has ended, or its user may not act; Unavailable."""
        if (known := self.cached_in(session_id)) is not None:
            return known
        generation = self._generation
        found, account = signed_in(session_id, self._log)
        identity = Identity(actor=Actor(id=account.id, role=account.role), session_id=found.id, signed_in_at=found.started_at)
        self._cache(identity, generation)
        return identity

    def forget(self, user_id: UUID) -> None:
        """After anything that changes what a user may do."""
        with self._lock:
            self._generation += 1
            for session_id in [known for known, identity in self._by_session.items() if identity.actor.id == user_id]:
                self._by_session.pop(session_id, None)

    def _cache(self, identity: Identity, generation: int) -> None:
        assert identity.session_id is not None
        with self._lock:
            if self._generation == generation:
                self._by_session[identity.session_id] = identity
