"""Who may create an account: anybody (`open`), people with an invitation (`invite`), or nobody (`closed`)."""

from typing import Final

from api.request import RequestContext
from domain.errors import Forbidden

NOT_OPEN: Final = "Accounts cannot be registered here: ask an administrator for an invitation"
CLOSED: Final = "Accounts cannot be created here: ask an administrator"
NOBODY_CAN_ACCEPT: Final = "Nobody can accept an invitation while BIOSCOPE_REGISTRATION is closed: set it to invite for the API"


def require_open_registration(context: RequestContext) -> None:
    """Raises Forbidden."""
    if context.options.registration != "open":
        raise Forbidden(NOT_OPEN if context.options.registration == "invite" else CLOSED)


def require_invitations(context: RequestContext, *, refusal: str = CLOSED) -> None:
    """Raises Forbidden with the sentence `refusal`."""
    if context.options.registration == "closed":
        raise Forbidden(refusal)
