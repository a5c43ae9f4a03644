"""The context of one request: its actor, the use cases and queries that it runs, and the headers of its response."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4, uuid5

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from api.access_notes import note_row
from api.app_context import app_context
from api.clock import utc_now
from api.middleware.authentication import bearer
from api.middleware.client_address import peer_of
from api.middleware.unstorable_text import is_printable, unprintable_parameter
from api.problems import AsOfNotAvailable
from application.authentication import CACHE_SECONDS, Identity, read_credential
from application.commands import CommandResult, idempotent
from application.limits.connection_slots import network_of
from application.ports import Command
from application.services import QueryDatabase
from domain.access import Actor
from domain.errors import Invalid, NotFound, Unavailable
from projections.pagination import MAX_PAGE, Page

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V", bound=msgspec.Struct)

PageSize = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)]
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
ETAG = re.compile(r'"(\d{1,9})"')
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_POSITION_DIGITS = 18
AUTHENTICATED_FOR_SECONDS = CACHE_SECONDS  # a longer request, such as an upload or an export, is authenticated again


class RequestContext:
    """A request, the actor who sent it, and what it may use."""

    def __init__(self, request: Request[Any, Any, Any], identity: Identity | None) -> None:
        app = app_context(request.scope)
        self.request, self.services, self.options, self.identities = request, app.services, app.options, app.identities
        self._identity, self._authenticated_at = identity, time.monotonic()

    @property
    def identity(self) -> Identity:
        """The authenticated identity; only routes without authentication have none."""
        assert self._identity is not None
        return self._identity

    @property
    def actor(self) -> Actor:
        return self.identity.actor

    @property
    def address(self) -> str:
        """The client's address, as events record it."""
        return peer_of(self.request.scope, self.options.trusted_proxies)

    @property
    def network(self) -> str:
        """The address as rate limits count it."""
        return network_of(self.address)

    @property
    def path(self) -> str:
        return str(self.request.scope["path"])

    @property
    def request_id(self) -> str:
        return str(self.request.scope["state"]["request_id"])

    # ---- commands ----
    def command(self, *, actor: Actor | None = None, payload: bytes = b"", keyed: bool = True) -> Command:
        """This request as a command. A repeat with the same Idempotency-Key is the same command. `keyed=False` ignores the header.

        Raises Invalid.
        """
        actor = actor or self.actor
        key = self.request.headers.get("idempotency-key") if keyed and self.request.method == "POST" else None
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
            message = "must have 1 to 255 visible ASCII characters"
            raise Invalid(f"Idempotency-Key {message}", errors=[{"loc": ["header", "Idempotency-Key"], "msg": message}])
        path = self.path.rstrip("/")
        trace = self.request.headers.get("traceparent", "")
        digest, *earlier = self.services.request_digests(path.encode() + b"\n" + payload) if key else (None,)
        return Command(
            id=uuid5(actor.id, f"{path}\n{key}") if key else uuid4(),
            actor=actor,
            at=utc_now(),
            digest=digest,
            earlier_digests=tuple(earlier),
            request_id=self.request_id,
            traceparent=trace if TRACEPARENT.fullmatch(trace) else "",
        )

    async def execute(self, use_case: Callable[..., R], *args: object, command: Command | None = None, **kwargs: object) -> R:
        """Run a use case in a thread, with `command` and the log, and wait until queries show its effect.

        The default command is `self.command()` over the body. A repeat with the same Idempotency-Key returns the first result without
        running the use case again. Raises what the use case raises, and NotAuthenticated if the session or key ended during a long request.
        """
        log = self.services.log
        if command is None:
            command = self.command(payload=await self.request.body())
        command = await self._with_present_rights(command)
        run: Callable[[], Any] = partial(use_case, *args, **kwargs, command=command, log=log)
        if command.digest is not None:
            run = partial(idempotent, log, command, run)
        result: R = await asyncio.to_thread(run)
        if isinstance(result, CommandResult):
            await self._wait_until_visible(result.position)
        return result

    async def _with_present_rights(self, command: Command) -> Command:
        """The command, of the actor as it is now: the session or key may have ended while the body arrived. Raises NotAuthenticated."""
        if self._identity is None or command.actor != self._identity.actor:
            return command
        return msgspec.structs.replace(command, actor=await self._present_actor())

    async def _present_actor(self) -> Actor:
        """The actor, authenticated again if that was some seconds ago. Raises NotAuthenticated if the session or key has ended."""
        if time.monotonic() - self._authenticated_at >= AUTHENTICATED_FOR_SECONDS:
            self._identity = await asyncio.to_thread(self._authenticated_again)
            self._authenticated_at = time.monotonic()
        return self.actor

    def _authenticated_again(self) -> Identity:
        """The identity of the same session or key as it is now. Blocks. Raises NotAuthenticated, TooMany, Unavailable."""
        if (session_id := self.identity.session_id) is not None:
            return self.identities.signed_in(session_id)
        token = bearer(self.request.headers) or ""
        credential = read_credential(token, self.services.access_tokens, at=utc_now())
        return self.identities.authenticate(credential, network=self.network)

    async def _wait_until_visible(self, position: int) -> None:
        """Wait for the read models, at most until the timeout. The command has succeeded in either case."""
        if position and "respond-async" not in self.request.headers.get("prefer", ""):
            await self.services.read_position.wait(position, self.options.visible_timeout_seconds)

    @property
    def expected_version(self) -> int | None:
        """The version in If-Match. None without the header, or for `*`. Raises Invalid."""
        header = self.request.headers.get("if-match")
        if header is None or header.strip() == "*":
            return None
        if not (match := ETAG.fullmatch(header.strip().removeprefix("W/"))):
            raise Invalid(
                'If-Match must be an ETag returned by this API, such as "3"',
                errors=[{"loc": ["header", "If-Match"], "msg": "must be an ETag returned by this API"}],
            )
        return int(match[1])

    # ---- queries ----
    async def read(self, query: Callable[Concatenate[QueryDatabase, Actor, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a query of the read models with the access of this actor, after they have reached `?min_position=`.

        Raises Invalid, Unavailable, NotAuthenticated if the session or key ended during a long request, and what the query raises.
        """
        await self._wait_for_min_position()
        found = await query(self.services.reads, await self._present_actor(), *args, **kwargs)
        note_row(self.request.scope, found)
        return found

    async def read_log(self, query: Callable[..., R], *args: object, **kwargs: object) -> R:
        """Run a query of the log in a thread."""
        return await asyncio.to_thread(query, *args, **kwargs, log=self.services.log)

    async def _wait_for_min_position(self) -> None:
        text = self.request.query_params.get("min_position")
        if text is None:
            return
        if not text.isdecimal() or len(text) > MAX_POSITION_DIGITS:
            message = "must be a whole number"
            raise Invalid(f"min_position {message}", errors=[{"loc": ["query", "min_position"], "msg": message}])
        position, read_position = int(text), self.services.read_position
        if position > read_position.position and position > await asyncio.to_thread(self.services.log.head):
            message = "lies beyond the end of the log: send the X-Event-Position of a response"
            raise Invalid(f"min_position {message}", errors=[{"loc": ["query", "min_position"], "msg": message}])
        if not await read_position.wait(position, self.options.visible_timeout_seconds):
            raise Unavailable("The read models have not reached min_position yet; try again", retry_after=1)

    # ---- responses ----
    def created(self, body: T, result: CommandResult) -> Response[T]:
        return Response(body, status_code=201, headers=self._headers_of(result))

    def accepted(self, body: T, result: CommandResult, *, location: str) -> Response[T]:
        """The answer to a command whose work goes on. `location` is the path at which it can be followed."""
        headers = self._headers_of(result) | {"Location": f"{self.options.base_path}{location}"}
        return Response(body, status_code=202, headers=headers)

    def changed(self, body: T, result: CommandResult) -> Response[T]:
        return Response(body, headers=self._headers_of(result))

    def no_content(self, result: CommandResult) -> Response[None]:
        return Response(None, status_code=204, headers=self._position_header(result))

    def versioned(self, body: T, *, version: int) -> Response[T]:
        return Response(body, headers={"ETag": f'"{version}"'})

    def page(self, page: Page[T], view: Callable[[T], R]) -> Response[list[R]]:
        """A bare list. Link and X-Next-Cursor name the next page. X-Total-Count is the length of the whole list, if counting is cheap."""
        headers: dict[str, str] = {}
        if page.next_cursor is not None:
            parameters = [(name, value) for name, value in self.request.query_params.multi_items() if name not in {"cursor", "page"}]
            query = urlencode([*parameters, ("cursor", page.next_cursor)])
            headers = {"Link": f'<{self.options.base_path}{self.path}?{query}>; rel="next"', "X-Next-Cursor": page.next_cursor}
        if page.total is not None:
            headers["X-Total-Count"] = str(page.total)
        return Response([view(item) for item in page.items], headers=headers)

    def _headers_of(self, result: CommandResult) -> dict[str, str]:
        return {"ETag": f'"{result.version}"'} | self._position_header(result)

    def _position_header(self, result: CommandResult) -> dict[str, str]:
        """None for anonymous clients: from two positions, they could conclude whether a request between them appended an event."""
        return {"X-Event-Position": str(result.position)} if result.position and self._identity is not None else {}


class NamedBody(msgspec.Struct, frozen=True):
    """The new thing."""

    id: UUID
    name: str


async def reject_unsupported_as_of(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse `as_of` on a route that does not support it, instead of showing the present as the past. Raises AsOfNotAvailable."""
    if "as_of" in connection.query_params and "as_of" not in handler.parsed_fn_signature.parameters:
        raise AsOfNotAvailable


async def reject_unprintable_address(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse control characters and invalid UTF-8 in the address. Raises NotFound if they are in the path, Invalid in the query."""
    scope = connection.scope
    if not is_printable(scope.get("raw_path") or quote(scope["path"]).encode()):
        raise NotFound("Not Found")
    name = unprintable_parameter(scope["query_string"])
    if name is not None:
        message = "must be text in UTF-8 without control characters"
        raise Invalid(f"{name or 'The query'} {message}", errors=[{"loc": ["query", *filter(None, [name])], "msg": message}])


def sent_fields(data: msgspec.Struct) -> dict[str, Any]:
    """The fields that the client sent, including nulls."""
    return {name: value for name, value in msgspec.structs.asdict(data).items() if value is not msgspec.UNSET}


def from_row(row: object, view: type[V], **computed: object) -> V:
    """A `view` whose fields are the attributes of `row`, except those in `computed`."""
    if not computed:
        return msgspec.convert(row, view, from_attributes=True)
    fields = {name: computed[name] if name in computed else getattr(row, name) for name in view.__struct_fields__}
    return msgspec.convert(fields, view, from_attributes=True)


def payload_of(fields: Mapping[str, object]) -> bytes:
    """The payload for the digest of a command whose body is a stream."""
    return msgspec.json.encode(dict(sorted(fields.items())))
