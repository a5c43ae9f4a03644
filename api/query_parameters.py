"""Refuses unknown and repeated query parameters, where leaving one out would answer another question."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from api.allowed_values import public_name
from domain.errors import Invalid
from domain.values import repeatable

MIN_POSITION: Final = "min_position"
Connection = ASGIConnection[Any, Any, Any, Any]


def only_known_parameters(*others: str) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """A guard that accepts the query parameters of the handler and `others`, each once. It raises Invalid."""

    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        known = [*_parameters_of(handler), *others]
        sent = [name for name, _ in connection.query_params.multi_items()]
        for name in sorted(set(sent)):
            if name not in known:
                raise _refused(repeatable(name), f"is unknown: {_listed(known)}")
            if sent.count(name) > 1:
                raise _refused(name, "is repeated: send it once")

    return guard


def _parameters_of(handler: BaseRouteHandler) -> list[str]:
    parameters = handler.parsed_fn_signature.parameters
    return [public_name(one, name) for name, one in parameters.items() if isinstance(one.kwarg_definition, QueryParameter)]


def _listed(known: list[str]) -> str:
    return f"the parameters here are {', '.join(known)}" if known else "this route takes no parameters"


def _refused(name: str, message: str) -> Invalid:
    return Invalid(f"{name or 'A parameter'} {message}", errors=[{"loc": ["query", *filter(None, [name])], "msg": message}])
