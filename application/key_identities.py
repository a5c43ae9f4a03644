"""Authentication by API key, and by the signed service tokens of earlier releases. Read from the log and cached for a few seconds."""

import hmac
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from cachetools import TTLCache

from application.identity import CACHE_SECONDS, MAX_CACHED, Identity
from application.key_text import PresentedKey
from application.ports import EventStore, KeyUses
from application.services import Claims
from domain import api_key, service_account, user
from domain.access import Actor, Scope
from domain.api_key import ApiKey, KeyIssued, OwnerKind
from domain.errors import NotAuthenticated, Unavailable
from domain.service_account import LEGACY_LIFETIME, LEGACY_TOKENS, LegacyTokens, evolve_legacy_tokens

SECRET: Final = "api-key"  # noqa: S105 - the kind of a stored hash
PREVIOUS_SECRET: Final = "previous-api-key"  # noqa: S105
SECONDS_BETWEEN_USES: Final = 60.0  # between two stored uses of one key
RECOGNISED_SECONDS: Final = 600.0


class AcceptedKey(NamedTuple):
    """An identity, and when it was found: identities found before a change of rights are not cached."""

    identity: Identity
    generation: int


class IdentityEntries:
    """Identities by credential, and refused credentials, for a few seconds. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float], now: Callable[[], datetime], seconds: float, maximum: int) -> None:
        self._accepted: TTLCache[Hashable, Identity] = TTLCache(maximum, seconds, timer=clock)
        self._refused: TTLCache[Hashable, None] = TTLCache(maximum, seconds, timer=clock)
        self._now, self._lock = now, Lock()
        self.generation = 0  # increases with each `forget`

    def find(self, credential: Hashable) -> Identity | None:
        """Raises NotAuthenticated for a credential that was refused, or that has expired since then."""
        with self._lock:
            is_refused, identity = credential in self._refused, self._accepted.get(credential)
        if is_refused or (identity is not None and identity.expires_at is not None and identity.expires_at <= self._now()):
            raise refused()
        return identity

    def accept(self, credential: Hashable, found: AcceptedKey) -> None:
        with self._lock:
            if self.generation == found.generation:
                self._accepted[credential] = found.identity

    def refuse(self, credential: Hashable) -> None:
        with self._lock:
            self._refused[credential] = None

    def forget(self, affected: Callable[[Identity], bool]) -> None:
        with self._lock:
            self.generation += 1
            for credential in [known for known, identity in self._accepted.items() if affected(identity)]:
                self._accepted.pop(credential, None)


class KeyIdentities:
    """The identities of API keys and signed service tokens. Thread-safe.

    `count_refusal(network)` counts a refused key, and raises TooMany after too many. The last use of a key is stored once a minute at most.
    """

    def __init__(
        self,
        log: EventStore,
        uses: KeyUses,
        *,
        count_refusal: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seconds: float = CACHE_SECONDS,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._log, self._uses, self._count_refusal, self._now = log, uses, count_refusal, now
        self._entries = IdentityEntries(clock=clock, now=now, seconds=seconds, maximum=max_cached)
        self._holders = IdentityEntries(clock=clock, now=now, seconds=seconds, maximum=max_cached)
        self._recognised: TTLCache[PresentedKey, UUID] = TTLCache(max_cached, RECOGNISED_SECONDS, timer=clock)
        self._stored_uses: TTLCache[UUID, None] = TTLCache(max_cached, SECONDS_BETWEEN_USES, timer=clock)
        self._lock = Lock()

    # ---- API keys ----
    def cached(self, credential: PresentedKey | Claims) -> Identity | None:
        """The identity if it is known without a lookup. Raises NotAuthenticated for a credential that was refused a moment ago."""
        return self._entries.find(credential)

    def authenticate(self, credential: PresentedKey | Claims, *, network: str) -> Identity:
        """The identity of a key with a correct checksum, or of verified claims of a service. Blocks.

        Raises NotAuthenticated if it is not accepted, TooMany instead after too many refusals of one network, Unavailable, UpgradeNeeded.
        """
        if (known := self.cached(credential)) is not None:
            return known
        generation = self._entries.generation
        try:
            identity = self._verified(credential) if isinstance(credential, PresentedKey) else self._of_service_token(credential)
        except NotAuthenticated:
            self._entries.refuse(credential)
            self._count_refusal(network)
            raise
        self._entries.accept(credential, AcceptedKey(identity, generation))
        if isinstance(credential, PresentedKey):
            with self._lock:
                self._recognised[credential] = identity.actor.id
        self._store_use(credential, identity, network)
        return identity

    def recognises(self, key: PresentedKey) -> bool:
        """Whether the key was accepted during the last minutes. Does not block; the key may have been revoked since."""
        with self._lock:
            return key in self._recognised

    def forget(self, changed: UUID) -> None:
        """Drop the cached identities of an owner or key. To be called after each change of its rights."""
        for entries in (self._entries, self._holders):
            entries.forget(lambda identity: changed in {identity.actor.id, identity.actor.key})

    def _verified(self, presented: PresentedKey) -> Identity:
        found = self._existing(presented.id)
        expiry = found.expiry_of(presented.secret_hash)
        stored = (self._log.secret(kind, found.id) or b"" for kind in (SECRET, PREVIOUS_SECRET))
        is_stored = sum(hmac.compare_digest(known, presented.secret_hash) for known in stored) > 0
        if expiry is None or expiry <= self._now() or not is_stored:
            raise refused()
        return Identity(actor=self._actor(found), expires_at=expiry)

    def _existing(self, key: UUID) -> ApiKey:
        """Raises NotAuthenticated. Reads two events of a stream that is no key, however long it is."""
        is_open = self._log.is_open(key, begun_by=KeyIssued, closed_by=api_key.CLOSING)
        found = self._log.load(key, api_key.evolve) if is_open else None
        if found is None or found.revoked:
            raise refused()
        return found

    def _actor(self, found: ApiKey) -> Actor:
        with_key = partial(Actor, scopes=found.scopes, key=found.id, datasets=found.dataset_ids)
        if found.owner_kind is OwnerKind.USER:
            account = self._log.load(found.owner_id, user.evolve)
            if account is None or not account.may_sign_in:
                raise refused(user_id=found.owner_id)
            return with_key(id=account.id, role=account.role)
        service = self._log.load(found.owner_id, service_account.evolve)
        if service is None or service.deleted:
            raise refused()
        return with_key(id=service.id, kind="service", name=service.name)

    # ---- signed service tokens of earlier releases ----
    def _of_service_token(self, claims: Claims) -> Identity:
        end = min(claims.expires_at, claims.issued_at + LEGACY_LIFETIME)
        revoked = self._revoked_tokens()
        if end <= self._now() or (revoked is not None and claims.issued_at <= revoked.revoked_at):
            raise refused()
        return Identity(actor=Actor(id=claims.subject, kind="service", scopes=claims.scopes, name=claims.name), expires_at=end)

    def _revoked_tokens(self) -> LegacyTokens | None:
        return self._log.load(LEGACY_TOKENS, evolve_legacy_tokens)

    # ---- holders of signed addresses ----
    def holder(self, holder: UUID) -> Actor:
        """The actor with the key that a signed address was issued to, or with a service token. Blocks.

        Raises NotAuthenticated if it is no longer accepted, and Unavailable.
        """
        if (known := self._holders.find(holder)) is not None:
            return known.actor
        generation = self._holders.generation
        identity = self._of_holder(holder)
        self._holders.accept(holder, AcceptedKey(identity, generation))
        return identity.actor

    def _of_holder(self, holder: UUID) -> Identity:
        if self._log.event(holder, 1) is not None:
            found = self._existing(holder)
            if found.expires_at <= self._now():
                raise refused()
            return Identity(actor=self._actor(found), expires_at=found.expires_at)
        if self._revoked_tokens() is not None:
            raise refused()
        return Identity(actor=Actor(id=holder, kind="service", scopes=frozenset({Scope.IMAGES_READ})))

    # ---- uses ----
    def _store_use(self, credential: PresentedKey | Claims, identity: Identity, network: str) -> None:
        """A use that cannot be stored now is stored with the next request."""
        key = credential.id if isinstance(credential, PresentedKey) else credential.token_id
        with self._lock:
            if key in self._stored_uses:
                return
            self._stored_uses[key] = None
        with suppress(Unavailable):
            if isinstance(credential, PresentedKey):
                self._uses.record(key, network=network, user=None if identity.actor.is_service else identity.actor.id)
                return
            self._uses.record_legacy(key, name=credential.name, expires_at=identity.expires_at or credential.expires_at, network=network)
            return
        with self._lock:
            self._stored_uses.pop(key, None)


def refused(*, user_id: UUID | None = None) -> NotAuthenticated:
    """One message for every reason, so that nothing is learned from it."""
    return NotAuthenticated("Invalid key: it is unknown, incomplete, revoked or expired, or its owner may not sign in", user_id=user_id)
