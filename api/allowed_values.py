"""The values that a parameter or a field of a body may have, where its type lists them."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from litestar.handlers import BaseRouteHandler
from litestar.typing import FieldDefinition
from msgspec import inspect

from domain.values import repeatable

NOT_ALLOWED: Final = re.compile(r"Invalid enum value (.+)", re.DOTALL)
REPLACED: Final = {"Invalid UUID": "must be an id, such as 74e02ed7-defc-5b5f-96eb-de056419e140"}
"""Messages of msgspec that do not say what to send."""
STEP: Final = re.compile(r"\[\d+\]|[^\[]+")  # of "scopes[0]"


def parameter_of(handler: BaseRouteHandler, name: str) -> FieldDefinition | None:
    """What the handler, or a dependency of it, declares under this Python name."""
    signatures = (handler.parsed_fn_signature, *(one.parsed_fn_signature for one in handler.resolve_dependencies().values()))
    return next((one.parameters[name] for one in signatures if name in one.parameters), None)


def public_name(parameter: FieldDefinition | None, name: str) -> str:
    """The name of a parameter in a request; `name` is the Python name."""
    return getattr(getattr(parameter, "kwarg_definition", None), "name", None) or name


def sentence(message: str, parameter: FieldDefinition | None, path: Sequence[str] = ()) -> str:
    """`message` of msgspec, or if it says that a value is none of the allowed ones, a sentence with those.

    `path` leads to the field from the parameter, which is the body. A value is repeated if it is a short word.
    """
    refused = NOT_ALLOWED.fullmatch(message)
    steps = [step for part in path for step in STEP.findall(part)]
    allowed = tuple(_allowed(inspect.type_info(parameter.annotation), steps)) if refused and parameter is not None else ()
    if not refused:
        return REPLACED.get(message, message)
    if not allowed:
        return "is none of the allowed values"
    word = repeatable(refused[1][1:-1])
    return f"must be {' or '.join(filter(None, (', '.join(allowed[:-1]), allowed[-1])))}{f', not {word!r}' if word else ''}"


def _allowed(kind: inspect.Type, path: Sequence[str]) -> Iterator[str]:
    """Words first."""
    match kind:
        case inspect.Metadata():
            yield from _allowed(kind.type, path)
        case inspect.UnionType():
            for one in sorted(kind.types, key=lambda one: not isinstance(one, inspect.EnumType)):
                yield from _allowed(one, path)
        case inspect.CollectionType() if path and path[0].startswith("["):
            yield from _allowed(kind.item_type, path[1:])
        case inspect.StructType() if path:
            for field in kind.fields:
                if field.encode_name == path[0]:
                    yield from _allowed(field.type, path[1:])
        case inspect.EnumType() if not path:
            yield from (str(member.value) for member in kind.cls)
        case inspect.IntType() if not path:
            yield "a whole number"
