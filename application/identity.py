"""The authenticated actor of a request."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from application.signed_downloads import Holder
from domain.access import Actor

CACHE_SECONDS: Final = 5.0  # another process may accept a revoked session or key, or a lost role, for this long
MAX_CACHED: Final = 10_000


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated actor: a user with `session_id` and `signed_in_at`, or an owner of a key, which works until `expires_at`."""

    actor: Actor
    session_id: UUID | None = None
    signed_in_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def key(self) -> UUID | None:
        """The API key with which the actor acts."""
        return self.actor.key

    @property
    def holder(self) -> Holder:
        """The session, key or service that signed addresses are issued to."""
        if self.session_id is not None:
            return Holder(self.session_id)
        assert self.expires_at is not None
        return Holder(self.actor.key or self.actor.id, until=int(self.expires_at.timestamp()))
