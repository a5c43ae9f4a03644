"""Pages with a form: what it asks for, and how it is shown again after an error, with the typed values except passwords."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from litestar import Response

from api.access_notes import note_error
from api.pages.rendering import rendered
from api.pages.visits import SignedOut, require_own_form
from api.problems import STATUS, Malformed
from api.request import RequestContext
from domain.errors import DomainError, Invalid, InvalidLink, Taken
from domain.values import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, printable

MAX_FIELDS: Final = 32
MAX_TOKEN_CHARACTERS: Final = 256
NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # in an input of one line
PASSWORD_HINT: Final = (
    f"{MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters. Four or five unrelated words make a good password."
)

Values = Mapping[str, str]


class Field(NamedTuple):
    """An input. `kind` is its type in HTML, `autocomplete` what browsers and password managers fill in."""

    name: str
    label: str
    autocomplete: str
    kind: str = "text"
    maximum: int = 100
    minimum: int = 0
    hint: str = ""
    is_required: bool = True


class Link(NamedTuple):
    text: str
    path: str


class FormPage(NamedTuple):
    """A page that sends its form to its own path. `sentences` replace the message of an error, by its code."""

    path: str
    title: str
    button: str
    fields: tuple[Field, ...] = ()
    text: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    sentences: Mapping[str, str] = {}


class FieldProblem(NamedTuple):
    """A sentence about one field, or about the whole form (`field` is empty)."""

    field: str
    sentence: str


EMAIL: Final = Field("email", "E-mail address", "username", "email")
USERNAME: Final = Field("username", "User name", "nickname", maximum=50, hint="3 to 50 characters")
FIRST_NAME: Final = Field("first_name", "First name", "given-name", maximum=50)
LAST_NAME: Final = Field("last_name", "Last name", "family-name", maximum=50)
NEW_PASSWORD: Final = Field(
    "password", "New password", "new-password", "password", MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, hint=PASSWORD_HINT
)
CURRENT_PASSWORD: Final = Field("password", "Password", "current-password", "password", maximum=1024)


def shown(
    context: RequestContext,
    page: FormPage,
    *,
    values: Values | None = None,
    token: str = "",
    address: str = "",
    facts: Mapping[str, str] | None = None,
    notice: str = "",
    error: DomainError | None = None,
) -> Response[str]:
    """The page. `facts` are shown above the form, `token` is sent with it. Browsers store a password for the `address`."""
    problems = problems_of(error, page) if error else []
    return rendered(
        "form.html",
        context.options,
        status=STATUS.get(error.code, 400) if error else 200,
        headers=retry_header(error),
        page=page,
        values=values or {},
        token=token,
        address=address,
        facts=facts or {},
        notice=notice,
        problems=problems,
        problem_of={problem.field: problem.sentence for problem in reversed(problems) if problem.field},
    )


async def submitted(
    context: RequestContext,
    page: FormPage,
    perform: Callable[[Values], Awaitable[Response[Any]]],
    *,
    address: str = "",
    facts: Mapping[str, str] | None = None,
) -> Response[Any]:
    """The answer of `perform` to the values that were sent, or the page again with the reason why it was refused.

    Raises Forbidden, Malformed, SignedOut, and InvalidLink, after which there is nothing to send again.
    """
    sent = await sent_values(context)
    values = {field.name: sent.get(field.name, "") for field in page.fields} | {"token": sent.get("token", "")}
    try:
        require_plain_texts(page, values)
        return await perform(values)
    except DomainError as error:
        if isinstance(error, InvalidLink | SignedOut):
            raise
        note_error(context.request.scope, error)
        typed = {name: printable(value) for name, value in values.items()}
        return shown(context, page, values=typed, token=typed["token"], address=address, facts=facts, error=error)


async def sent_values(context: RequestContext) -> Values:
    """The fields of a form of this site. Raises Forbidden, Malformed."""
    require_own_form(context)
    try:
        text = (await context.request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Malformed(f"The form cannot be read: it has more than {MAX_FIELDS} fields. Open its page, and send it from there") from None


def require_plain_texts(page: FormPage, values: Values) -> None:
    """Raises Invalid for empty and overlong values and those with control characters, InvalidLink for such a token.

    Use cases check the rules of the values.
    """
    errors = [{"loc": ["body", field.name], "msg": message} for field in page.fields if (message := _problem(field, values[field.name]))]
    if errors:
        raise Invalid("The form is not complete", errors=errors)  # type: ignore[arg-type]
    if len(values["token"]) > MAX_TOKEN_CHARACTERS or NOT_TEXT.search(values["token"]):
        raise InvalidLink


def _problem(field: Field, value: str) -> str:
    if NOT_TEXT.search(value):
        return "must not contain control characters"
    if field.is_required and not value.strip():
        return "is missing"
    return f"must have at most {field.maximum} characters" if len(value) > field.maximum else ""


def problems_of(error: DomainError, page: FormPage) -> Sequence[FieldProblem]:
    """What is wrong, each with the field that it concerns. No value is repeated."""
    labels = {field.name: field.label for field in page.fields}
    if isinstance(error, Taken) and error.scope in labels:
        return [FieldProblem(error.scope, error.detail)]
    if isinstance(error, Invalid) and error.errors:
        named = [(str(item["loc"][-1]), item["msg"]) for item in error.errors]
        return [
            FieldProblem(name, f"{labels[name]} {message}") if name in labels else FieldProblem("", error.detail) for name, message in named
        ]
    return [FieldProblem("", page.sentences.get(error.code, error.detail))]


def retry_header(error: DomainError | None) -> dict[str, str]:
    return {"Retry-After": str(error.retry_after)} if error and error.retry_after is not None else {}
