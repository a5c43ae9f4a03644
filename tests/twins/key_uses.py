"""The in-memory twin of the uses of API keys."""

from datetime import UTC, datetime

from application.authentication import IdentityCache
from application.key_identities import KeyIdentities
from application.ports import KeyUse


class MemoryKeyUses:
    """Behaves like `infrastructure.postgres.key_uses.PostgresKeyUses`. `close_account` stands for the deletion of a password."""

    def __init__(self, *, clock=lambda: datetime.now(UTC)):
        self._clock, self._uses, self._owners = clock, {}, {}
        self.writes = 0

    def record(self, key, *, network, user):
        self._owners[key] = user
        self._keep(key, network)

    def record_legacy(self, token, *, name, expires_at, network):
        self._keep(token, network, legacy_name=name, legacy_expiry=expires_at)

    def _keep(self, key, network, **legacy):
        self.writes += 1
        first = self._uses[key].first_at if key in self._uses else self._clock()
        self._uses[key] = KeyUse(key=key, first_at=first, last_at=self._clock(), network=network, **legacy)

    def of(self, keys):
        return {key: self._uses[key] for key in keys if key in self._uses}

    def legacy(self):
        return sorted((use for use in self._uses.values() if use.legacy_name is not None), key=lambda use: (use.first_at, use.key))

    def close_account(self, user):
        self._uses = {key: use for key, use in self._uses.items() if self._owners.get(key) != user}


def identity_cache(log, **more):
    """A cache of identities in whose installation no key was refused."""
    return IdentityCache(log, KeyIdentities(log, MemoryKeyUses(), count_refusal=lambda _: None), **more)
