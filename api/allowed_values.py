"""The values that a parameter or a field of a body may have, where its type lists them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from litestar.handlers import BaseRouteHandler
from litestar.typing import FieldDefinition
from msgspec import inspect

from api.field_messages import plain
from domain.values import repeatable

NOT_ALLOWED: Final = re.compile(r"Invalid (?:enum )?value (.+)", re.DOTALL)
STEP: Final = re.compile(r"\[\d+\]|[^\[]+")  # of "scopes[0]"


def parameter_of(handler: BaseRouteHandler, name: str) -> FieldDefinition | None:
    """What the handler, or a dependency of it, declares under this Python name."""
    signatures = (handler.parsed_fn_signature, *(one.parsed_fn_signature for one in handler.resolve_dependencies().values()))
    return next((one.parameters[name] for one in signatures if name in one.parameters), None)


def public_name(parameter: FieldDefinition | None, name: str) -> str:
    """The name of a parameter in a request; `name` is the Python name."""
    return getattr(getattr(parameter, "kwarg_definition", None), "name", None) or name


def sentence(message: str, parameter: FieldDefinition | None, path: Sequence[str] = ()) -> str:
    """`message` of msgspec as the end of a sentence about the field. If the value is none of the allowed ones, they follow.

    `path` leads to the field from the parameter, which is the body. A value is repeated if it is a short word.
    """
    refused = NOT_ALLOWED.fullmatch(message)
    if not refused:
        return plain(message)
    allowed = tuple(_allowed(_types_at(parameter, path)))
    if not allowed:
        return "is none of the allowed values"
    word = repeatable(refused[1][1:-1])
    return f"must be {' or '.join(filter(None, (', '.join(allowed[:-1]), allowed[-1])))}{f', not {word!r}' if word else ''}"


def fields_at(parameter: FieldDefinition | None, path: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the fields that the object at `path` in the body may have. None if the body has no object there."""
    structs = [kind for kind in _types_at(parameter, path) if isinstance(kind, inspect.StructType)]
    return tuple(field.encode_name for kind in structs for field in kind.fields) if structs else None


def _types_at(parameter: FieldDefinition | None, path: Sequence[str]) -> Iterator[inspect.Type]:
    """What a value at `path` may be."""
    if parameter is not None:
        yield from _types(inspect.type_info(parameter.annotation), [step for part in path for step in STEP.findall(part)])


def _types(kind: inspect.Type, path: Sequence[str]) -> Iterator[inspect.Type]:
    match kind:
        case inspect.Metadata():
            yield from _types(kind.type, path)
        case inspect.UnionType():
            for one in kind.types:
                yield from _types(one, path)
        case inspect.CollectionType() if path and path[0].startswith("["):
            yield from _types(kind.item_type, path[1:])
        case inspect.StructType() if path:
            for field in kind.fields:
                if field.encode_name == path[0]:
                    yield from _types(field.type, path[1:])
        case _ if not path:
            yield kind


def _allowed(kinds: Iterable[inspect.Type]) -> Iterator[str]:
    """Words first."""
    for kind in sorted(kinds, key=lambda one: not isinstance(one, inspect.EnumType)):
        match kind:
            case inspect.EnumType():
                yield from (str(member.value) for member in kind.cls)
            case inspect.IntType():
                yield "a whole number"
