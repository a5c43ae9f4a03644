"""The links of mails. A page that one leads to shows whom it was sent to; the link is used up only when its form is sent."""

from api.clock import utc_now
from api.pages.forms import sent_values
from api.request import RequestContext
from application import opened_links
from domain.links import LinkPurpose


async def address_of(context: RequestContext, token: str, purpose: LinkPurpose) -> str:
    """Raises InvalidLink."""
    return await context.read_log(opened_links.address_of, token, purpose, at=utc_now(), links=context.services.mail_links)


async def sent_token(context: RequestContext) -> str:
    """The token in a form. Raises Forbidden, Malformed."""
    return (await sent_values(context)).get("token", "")
