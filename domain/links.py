"""Links that are sent by mail: each works once, for a limited time, and only the newest of its purpose."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from domain.errors import InvalidLink


class LinkPurpose(StrEnum):
    """What the link of a mail allows. A link of one purpose is refused for every other."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a purpose, not a secret
    CHANGE_EMAIL = "change_email"
    ACCEPT_INVITATION = "accept_invitation"


LIFETIMES: Final = {
    LinkPurpose.VERIFY_EMAIL: timedelta(minutes=30),
    LinkPurpose.RESET_PASSWORD: timedelta(minutes=30),
    LinkPurpose.CHANGE_EMAIL: timedelta(minutes=30),
    LinkPurpose.ACCEPT_INVITATION: timedelta(days=7),
}


class OpenLink(msgspec.Struct, frozen=True, kw_only=True):
    """The newest link of a purpose that was not used yet: the id of its request, and when it was requested."""

    purpose: LinkPurpose
    request_id: UUID
    requested_at: datetime

    @property
    def expires_at(self) -> datetime:
        return self.requested_at + LIFETIMES[self.purpose]


def require_open(link: OpenLink | None, request_id: UUID, *, at: datetime) -> None:
    """Raises InvalidLink unless `request_id` is that of the newest unused link, which has not expired."""
    if link is None or link.request_id != request_id or at >= link.expires_at:
        raise InvalidLink
