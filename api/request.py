"""One request of somebody known: asking use cases and queries in its name, and answering as the contract says."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode
from uuid import UUID, uuid4, uuid5

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from api.middleware.client_address import peer_of
from api.problems import AsOfNotAvailable
from application.authentication import Identity, IdentityCache
from application.commands import CommandResult, idempotent
from application.connection_slots import network_of
from application.ports import Command
from application.services import QueryDatabase, Services
from domain.access import Actor
from domain.errors import Invalid, Unavailable
from projections.pagination import MAX_PAGE, Page

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

PageSize = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)]
VISIBLE_TIMEOUT_SECONDS = 2.0  # seconds that an answer waits for its own effect
KEY = re.compile(r"[\x21-\x7e]{1,255}")
ETAG = re.compile(r'"(\d{1,9})"')
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestContext:
    """A request with the actor who makes it."""

    def __init__(self, request: Request[Any, Any, Any], services: Services, identities: IdentityCache, identity: Identity | None) -> None:
        self.request, self.services, self.identities = request, services, identities
        self._identity = identity

    @property
    def identity(self) -> Identity:
        """Of who signed in; only routes without authentication have none."""
        assert self._identity is not None
        return self._identity

    @property
    def actor(self) -> Actor:
        return self.identity.actor

    @property
    def address(self) -> str:
        """Whom it comes from, for the record."""
        return peer_of(self.request.scope, self.services.options.trusted_proxies)

    @property
    def network(self) -> str:
        """What limits count as one address."""
        return network_of(self.address)

    @property
    def path(self) -> str:
        return str(self.request.scope["path"])

    @property
    def request_id(self) -> str:
        return str(self.request.scope["state"]["request_id"])

    # ---- commands ----
    def command(self, *, actor: Actor | None = None, payload: bytes = b"", keyed: bool = True) -> Command:
        """The command that this request is. Its Idempotency-Key, where it may have one, makes the same command of a repeat."""
        who = actor or self.actor
        key = self.request.headers.get("idempotency-key") if keyed and self.request.method == "POST" else None
        if key is not None and not KEY.fullmatch(key):
            wrong = "must have 1 to 255 visible ASCII characters"
            raise Invalid(f"Idempotency-Key {wrong}", errors=[{"loc": ["header", "Idempotency-Key"], "msg": wrong}])
        path = self.path.rstrip("/")
        trace = self.request.headers.get("traceparent", "")
        digest, *earlier = self.services.digests(path.encode() + b"\n" + payload) if key else (None,)
        return Command(
            id=uuid5(who.id, f"{path}\n{key}") if key else uuid4(),
            actor=who,
            at=current_context(),
            digest=digest,
            earlier_digests=tuple(earlier),
            request_id=self.request_id,
            traceparent=trace if TRACEPARENT.fullmatch(trace) else "",
        )

    async def do(
        self, use_case: Callable[..., CommandResult], *args: object, payload: bytes | None = None, **kwargs: object
    ) -> CommandResult:
        """Run a use case in this actor's name, and wait until its effect can be read. A repeat of a keyed command decides nothing again."""
        command = self.command(payload=await self.request.body() if payload is None else payload)
        return await self.carry_out(command, use_case, *args, **kwargs)

    async def carry_out(self, command: Command, use_case: Callable[..., CommandResult], *args: object, **kwargs: object) -> CommandResult:
        log = self.services.log
        done = await asyncio.to_thread(idempotent, log, command, partial(use_case, *args, **kwargs, command=command, log=log))
        await self.until_visible(done.position)
        return done

    async def until_visible(self, position: int) -> None:
        """At most `VISIBLE_TIMEOUT_SECONDS`: the command is done, whether it shows or not."""
        if position and "respond-async" not in self.request.headers.get("prefer", ""):
            await self.services.visible.wait(position, VISIBLE_TIMEOUT_SECONDS)

    @property
    def expected(self) -> int | None:
        """The version that If-Match asks for. Raises Invalid."""
        given = self.request.headers.get("if-match")
        if given is None or given.strip() == "*":
            return None
        if not (found := ETAG.fullmatch(given.strip().removeprefix("W/"))):
            raise Invalid(
                'If-Match takes an ETag that we gave, like "3"', errors=[{"loc": ["header", "If-Match"], "msg": "is no ETag of ours"}]
            )
        return int(found[1])

    # ---- queries ----
    async def read(self, query: Callable[Concatenate[QueryDatabase, Actor, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask a query with this actor's eyes; not before the read models have reached `?min_position=`."""
        await self._until_asked()
        return await query(self.services.reads, self.actor, *args, **kwargs)

    async def _until_asked(self) -> None:
        wanted = self.request.query_params.get("min_position")
        if wanted is None:
            return
        if not wanted.isdecimal() or len(wanted) > 18:
            raise Invalid("min_position must be a position", errors=[{"loc": ["query", "min_position"], "msg": "must be a whole number"}])
        if not await self.services.visible.wait(int(wanted), VISIBLE_TIMEOUT_SECONDS):
            raise Unavailable("The read models have not come that far yet; try again", retry_after=1)

    # ---- answers ----
    def created(self, body: T, done: CommandResult) -> Response[T]:
        return Response(body, status_code=201, headers=self._about(done))

    def changed(self, body: T, done: CommandResult) -> Response[T]:
        return Response(body, headers=self._about(done))

    def gone(self, done: CommandResult) -> Response[None]:
        return Response(None, status_code=204, headers={"X-Event-Position": str(done.position)} if done.position else {})

    def found(self, body: T, *, version: int) -> Response[T]:
        return Response(body, headers={"ETag": f'"{version}"'})

    def page(self, page: Page[T], view: Callable[[T], R]) -> Response[list[R]]:
        """A bare list; how to go on stands in Link and X-Next-Cursor, the length of the whole list in X-Total-Count where it is cheap."""
        headers: dict[str, str] = {}
        if page.next_cursor is not None:
            kept = [(name, value) for name, value in self.request.query_params.multi_items() if name not in {"cursor", "page"}]
            query = urlencode([*kept, ("cursor", page.next_cursor)])
            headers = {"Link": f'<{self.services.options.base_path}{self.path}?{query}>; rel="next"', "X-Next-Cursor": page.next_cursor}
        if page.total is not None:
            headers["X-Total-Count"] = str(page.total)
        return Response([view(item) for item in page.items], headers=headers)

    @staticmethod
    def _about(done: CommandResult) -> dict[str, str]:
        position = {"X-Event-Position": str(done.position)} if done.position else {}
        return {"ETag": f'"{done.version}"'} | position


class NamedBody(msgspec.Struct, frozen=True):
    """What was made."""

    id: UUID
    name: str


def require_context(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """An `as_of` that was passed over would give what is there now for what was there then. Raises AsOfNotAvailable."""
    if "as_of" in connection.query_params and "as_of" not in handler.parsed_fn_signature.parameters:
        raise AsOfNotAvailable


def current_context() -> datetime:
    return datetime.now(UTC)


def sent_fields(data: msgspec.Struct) -> dict[str, Any]:
    """The fields of a body that were sent, null included; those left out are not there."""
    return {name: value for name, value in msgspec.structs.asdict(data).items() if value is not msgspec.UNSET}


def parts_of(values: Mapping[str, object]) -> bytes:
    """A payload for a command's digest, where the body itself is a stream."""
    return msgspec.json.encode(dict(sorted(values.items())))
