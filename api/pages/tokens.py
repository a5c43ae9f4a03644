"""The tokens of links in mails, as far as a page may look at them before its form is sent."""

from api.request import RequestContext
from domain.errors import InvalidLink
from domain.links import LinkPurpose


def require_purpose(context: RequestContext, token: str, purpose: LinkPurpose) -> None:
    """Raises InvalidLink for a token in another form, or of another purpose. Nothing is looked up, and nothing is used up."""
    if context.services.mail_links.read(token).purpose is not purpose:
        raise InvalidLink
