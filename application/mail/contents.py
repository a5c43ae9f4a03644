"""The texts of all mails, as plain text and as HTML.

A mail contains nothing that a stranger chose, except a user name that `shown_name` has cleaned. Its HTML loads nothing from anywhere.
"""

import re
from datetime import timedelta
from html import escape
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from domain.access import Role
from domain.links import LIFETIMES, LinkPurpose

LONGEST_NAME: Final = 32  # characters
NOT_IN_NAMES: Final = re.compile(r"[^\w-]+")
IGNORE: Final = "If you did not request this, ignore this mail: nothing changes."
STYLE: Final = "font-family: sans-serif; font-size: 15px; line-height: 1.5; color: #1b1b1b; max-width: 36em"
SMALL: Final = "font-size: 13px; color: #555555"


class Action(NamedTuple):
    """What the reader may do: a label, and the address of a page of this installation."""

    label: str
    url: str


class Content(NamedTuple):
    """The content of a mail. `before` and `after` are the paragraphs around the action."""

    subject: str
    before: tuple[str, ...]
    action: Action | None = None
    after: tuple[str, ...] = ()


class Pages:
    """The addresses of the pages that mails lead to, at the public URL of the installation."""

    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")

    @property
    def host(self) -> str:
        """The name by which people know the installation."""
        return urlsplit(self._base).netloc

    @property
    def forgot_password(self) -> str:
        return f"{self._base}/forgot-password"

    def verify(self, token: str) -> str:
        return f"{self._base}/account/verify?token={token}"

    def reset(self, token: str) -> str:
        return f"{self._base}/account/reset?token={token}"

    def confirm_email(self, token: str) -> str:
        return f"{self._base}/account/email?token={token}"

    def invitation(self, token: str) -> str:
        return f"{self._base}/account/invitation?token={token}"


def shown_name(username: str) -> str:
    """A user name in which no address, no line break and no sentence of a stranger remains: at most 32 letters, digits, - and _."""
    name = NOT_IN_NAMES.sub(" ", username).strip()
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME].rstrip()}..."


def verification(pages: Pages, *, username: str, token: str) -> Content:
    return Content(
        "Verify your e-mail address",
        (f'An account with the user name "{shown_name(username)}" was requested at {pages.host} with this e-mail address.',),
        Action("Verify the address", pages.verify(token)),
        (_lifetime(LinkPurpose.VERIFY_EMAIL), IGNORE),
    )


def existing_account(pages: Pages) -> Content:
    return Content(
        "You have an account already",
        (f"An account was requested at {pages.host} with this e-mail address, which belongs to an account already.",),
        Action("Choose a new password if you forgot it", pages.forgot_password),
        (IGNORE,),
    )


def invitation(pages: Pages, *, role: Role, token: str) -> Content:
    return Content(
        "You are invited to BioScopeAI",
        (f"An administrator of {pages.host} invites you to create an account with the role {role.value}.",),
        Action("Accept the invitation", pages.invitation(token)),
        (_lifetime(LinkPurpose.ACCEPT_INVITATION), "If you do not know this installation, ignore this mail."),
    )


def password_reset(pages: Pages, *, username: str, token: str) -> Content:
    return Content(
        "Choose a new password",
        (f'A new password was requested for your account "{shown_name(username)}" at {pages.host}.',),
        Action("Choose a new password", pages.reset(token)),
        (_lifetime(LinkPurpose.RESET_PASSWORD), IGNORE),
    )


def email_change(pages: Pages, *, username: str, token: str) -> Content:
    return Content(
        "Confirm your new e-mail address",
        (f'A change of the e-mail address of the account "{shown_name(username)}" at {pages.host} to this one was requested.',),
        Action("Confirm the address", pages.confirm_email(token)),
        (_lifetime(LinkPurpose.CHANGE_EMAIL), IGNORE),
    )


def password_changed(pages: Pages, *, username: str, by_owner: bool) -> Content:
    changed = f'The password of your account "{shown_name(username)}" at {pages.host} was changed'
    return Content(
        "Your password was changed",
        (f"{changed}." if by_owner else f"{changed} by an administrator.",),
        Action("Choose a new password if it was not you", pages.forgot_password),
        ("A new password ends all sessions. If it was not you, also inform your administrator.",),
    )


def email_changed_from(pages: Pages, *, username: str) -> Content:
    """For the earlier address, whose owner may not have wanted the change."""
    return Content(
        "Your e-mail address was changed",
        (
            f'Your account "{shown_name(username)}" at {pages.host} has a new e-mail address. Mails no longer go to this one.',
            "If it was not you, inform your administrator at once.",
        ),
    )


def email_changed_to(pages: Pages, *, username: str) -> Content:
    return Content(
        "Your e-mail address was changed",
        (f'Your account "{shown_name(username)}" at {pages.host} uses this e-mail address now. Sign in with it.',),
        None,
        ("If you have no such account, inform the administrator of this installation.",),
    )


def trial(pages: Pages) -> Content:
    return Content("Test of mail", (f"{pages.host} can send mail.",))


def plain_text(content: Content, pages: Pages) -> str:
    action = [f"{content.action.label}:\n{content.action.url}"] if content.action else []
    return "\n\n".join(["Hello,", *content.before, *action, *content.after, f"-- \n{_footer(pages)}"]) + "\n"


def html(content: Content, pages: Pages) -> str:
    action = [_link(content.action)] if content.action else []
    parts = ["<p>Hello,</p>", *map(_paragraph, content.before), *action, *map(_paragraph, content.after)]
    footer = f'<p style="{SMALL}">{escape(_footer(pages))}</p>'
    title = escape(content.subject)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body style="{STYLE}">\n' + "\n".join([*parts, footer]) + "\n</body></html>\n"
    )


def _footer(pages: Pages) -> str:
    return f"BioScopeAI at {pages.host}. Replies to this mail are not read."


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _link(action: Action) -> str:
    url = escape(action.url)
    return f'<p><a href="{url}">{escape(action.label)}</a></p>\n<p style="{SMALL}">{url}</p>'


def _lifetime(purpose: LinkPurpose) -> str:
    return f"The link works once, within {_in_words(LIFETIMES[purpose])}. A later mail replaces it."


def _in_words(time: timedelta) -> str:
    return f"{time.days} days" if time.days else f"{time.seconds // 60} minutes"
