"""Who may create an account: anybody (`open`), people with an invitation (`invite`), or nobody (`closed`)."""

from typing import Final

from api.request import RequestContext
from domain.errors import Forbidden

NOT_OPEN: Final = "Accounts cannot be registered here: ask an administrator for an invitation"
CLOSED: Final = "Accounts cannot be created here: ask an administrator"


def require_open_registration(context: RequestContext) -> None:
    """Raises Forbidden."""
    if context.options.registration != "open":
        raise Forbidden(NOT_OPEN if context.options.registration == "invite" else CLOSED)


def require_invitations(context: RequestContext) -> None:
    """Raises Forbidden."""
    if context.options.registration == "closed":
        raise Forbidden(CLOSED)
