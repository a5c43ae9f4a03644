"""Authentication: the actor that an access token or API key stands for, read from the log and cached for a few seconds."""

import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from uuid import UUID

from cachetools import TTLCache

from application.identity import CACHE_SECONDS, MAX_CACHED, Identity
from application.key_identities import RECOGNISED_SECONDS, KeyIdentities
from application.key_text import PresentedKey, is_key, read_key
from application.ports import EventStore
from application.services import AccessTokens, Claims
from domain import registration, session, user
from domain.access import Actor
from domain.errors import NotAuthenticated
from domain.registration import Registration
from domain.session import Session
from domain.user import User

__all__ = ["CACHE_SECONDS", "MAX_CACHED", "Credential", "Identity", "IdentityCache", "read_credential", "signed_in"]

Credential = Claims | PresentedKey
"""What a client proved or claims: verified claims of an access token, or an API key with a correct checksum."""

PENDING = "pending"  # the kind of the actor of a registration whose address is not verified yet


def read_credential(text: str, tokens: AccessTokens, *, at: datetime) -> Credential:
    """The credential of a request. Does not block. Raises NotAuthenticated."""
    if not is_key(text):
        return tokens.verify(text, at=at)
    key = read_key(text)
    if key is None:
        raise NotAuthenticated("Invalid key: it is not complete; copy all of it")
    return key


def signed_in(session_id: UUID, log: EventStore) -> tuple[Session, User | Registration]:
    """The session, and its user or the open registration whose password started it. Blocks.

    Raises NotAuthenticated if the session has ended or its user may not sign in, Unavailable.
    """
    found = log.load(session_id, session.evolve)
    if found is None or found.revoked:
        raise NotAuthenticated("Invalid token", user_id=found.user_id if found else None)
    account = signing_in(found.user_id, log)
    if isinstance(account, User) and account.ended(found.started_at):
        raise NotAuthenticated("Invalid token", user_id=account.id)
    return found, account


def signing_in(user_id: UUID, log: EventStore) -> User | Registration:
    """The account or the open registration with this id. Raises NotAuthenticated if it may not sign in."""
    account = log.load(user_id, user.evolve)
    if account is not None and account.may_sign_in:
        return account
    pending = log.load(user_id, registration.evolve) if account is None else None
    if pending is None or not pending.is_open:
        raise NotAuthenticated("User disabled", user_id=account.id if account else None)
    return pending


def actor_of(account: User | Registration) -> Actor:
    if isinstance(account, User):
        return Actor(id=account.id, role=account.role)
    return Actor(id=account.id, kind=PENDING)


class IdentityCache:
    """Authenticates credentials, with a cache of at most `max_cached` sessions for `seconds`. `keys` does so for keys. Thread-safe."""

    def __init__(
        self,
        log: EventStore,
        keys: KeyIdentities,
        *,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = CACHE_SECONDS,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._log, self.keys = log, keys
        self._by_session: TTLCache[UUID, Identity] = TTLCache(max_cached, seconds, timer=clock)
        self._recognised: TTLCache[UUID, None] = TTLCache(max_cached, RECOGNISED_SECONDS, timer=clock)
        self._lock = Lock()
        self._generation = 0  # increases with each `forget`: identities loaded before may be outdated

    def cached(self, credential: Credential) -> Identity | None:
        """The identity of a credential if it is known without a lookup. Raises NotAuthenticated for a key that was refused just now."""
        if isinstance(credential, PresentedKey) or credential.session_id is None:
            return self.keys.cached(credential)
        identity = self.cached_in(credential.session_id)
        return identity if identity and identity.actor.id == credential.subject else None

    def authenticate(self, credential: Credential, *, network: str = "") -> Identity:
        """The identity of a credential. `network` is the client's, for the limits and the last use of keys. Blocks.

        Raises NotAuthenticated (session ended, key refused, or user may not sign in), TooMany and Unavailable.
        """
        if isinstance(credential, PresentedKey) or credential.session_id is None:
            return self.keys.authenticate(credential, network=network)
        identity = self.signed_in(credential.session_id)
        if identity.actor.id != credential.subject:
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

    def recognises(self, session_id: UUID) -> bool:
        """Whether the session was accepted during the last minutes. Does not block; it may have ended since."""
        with self._lock:
            return session_id in self._recognised

    def forget(self, user_id: UUID) -> None:
        """Drop the user's cached identities. To be called after each change of the user's rights or sessions."""
        self.keys.forget(user_id)
        with self._lock:
            self._generation += 1
            for session_id in [known for known, identity in self._by_session.items() if identity.actor.id == user_id]:
                self._by_session.pop(session_id, None)

    def _cache(self, identity: Identity, generation: int) -> None:
        assert identity.session_id is not None
        with self._lock:
            self._recognised[identity.session_id] = None
            if self._generation == generation:
                self._by_session[identity.session_id] = identity
