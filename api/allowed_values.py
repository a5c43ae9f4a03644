"""The values that a parameter or a field of a body may have, where its type lists them."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from litestar.handlers import BaseRouteHandler
from litestar.typing import FieldDefinition
from msgspec import inspect

NOT_ALLOWED: Final = re.compile(r"Invalid enum value (.+)", re.DOTALL)
MAX_SHOWN: Final = 60


def parameter_of(handler: BaseRouteHandler, name: str) -> FieldDefinition | None:
    """What the handler, or a dependency of it, declares under this Python name."""
    signatures = (handler.parsed_fn_signature, *(one.parsed_fn_signature for one in handler.resolve_dependencies().values()))
    return next((one.parameters[name] for one in signatures if name in one.parameters), None)


def public_name(parameter: FieldDefinition | None, name: str) -> str:
    """The name of a parameter in a request; `name` is the Python name."""
    return getattr(getattr(parameter, "kwarg_definition", None), "name", None) or name


def sentence(message: str, parameter: FieldDefinition | None, path: Sequence[str] = ()) -> str:
    """`message` of msgspec, or if it says that a value is none of the allowed ones, a sentence with those.

    `path` leads to the field from the parameter, which is the body.
    """
    refused = NOT_ALLOWED.fullmatch(message)
    allowed = tuple(_allowed(inspect.type_info(parameter.annotation), path)) if refused and parameter is not None else ()
    if not refused or not allowed:
        return message
    shown = refused[1] if len(refused[1]) <= MAX_SHOWN else f"{refused[1][:MAX_SHOWN]}…"
    return f"must be {' or '.join(filter(None, (', '.join(allowed[:-1]), allowed[-1])))}, not {shown}"


def _allowed(kind: inspect.Type, path: Sequence[str]) -> Iterator[str]:
    """Words first."""
    match kind:
        case inspect.Metadata():
            yield from _allowed(kind.type, path)
        case inspect.UnionType():
            for one in sorted(kind.types, key=lambda one: not isinstance(one, inspect.EnumType)):
                yield from _allowed(one, path)
        case inspect.StructType() if path:
            for field in kind.fields:
                if field.encode_name == path[0]:
                    yield from _allowed(field.type, path[1:])
        case inspect.EnumType() if not path:
            yield from (str(member.value) for member in kind.cls)
        case inspect.IntType() if not path:
            yield "a whole number"
