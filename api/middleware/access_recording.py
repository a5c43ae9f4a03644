"""Records accesses for the trail of access: refusals, downloads, uses of keys, and reads by administrators.

The outermost middleware calls it for each response, so that no route needs to; live connections call it themselves, once they know their
client. It looks nothing up and decrypts nothing.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import structlog

from api.access_notes import NOTES, Notes
from api.clock import utc_now
from api.middleware.client_address import peer_of
from application.history.access_records import Access, AccessKind, AccessOutcome
from application.limits.connection_slots import network_of
from application.ports import AccessTrail
from domain.access import Actor, Role
from domain.values import model_id

log = structlog.get_logger()

PEOPLE: Final = frozenset({"user", "pending"})
SIGN_IN_ROUTES: Final = ("/api/auth/login", "/api/auth/login-swagger", "/sign-in")
TOKEN_ROUTES: Final = ("/api/auth/refresh", "/api/auth/logout", "/api/ws")
"""Routes that get a token elsewhere than in a header."""
MODEL_ROUTES: Final = ("/api/models/", "/api/v2/models/")
BLOB_ROUTE: Final = "/api/blobs/"
LOOKING_ROUTES: Final = {
    "preview": AccessKind.PREVIEW,
    "thumbnail": AccessKind.PREVIEW,
    "download": AccessKind.DOWNLOAD,
    "package": AccessKind.DOWNLOAD,
    "export": AccessKind.EXPORT,
}
"""Kinds by the last part of the route."""
NOUNS: Final = {"job": "classification", "check": "model_check", "service_account": "service_account", "about": "", "target": ""}
"""Nouns of the ids in routes, if they have another name."""
OF_NOBODY: Final = (
    "/api/users/me",
    "/api/sessions",
    "/api/keys",
    "/api/auth",
    "/api/models",
    "/api/v2",
    "/api/events/schemas",
    "/api/events/heads",
    "/api/health",
    "/api/docs",
    "/api/redoc",
    "/api/openapi",
    "/api/asyncapi",
)
"""Routes whose content concerns no other person: an administrator's reads of it are not recorded."""
LISTS_OF: Final = ("image_id", "dataset_id", "classification_id", "device_id")
"""Filters of lists and exports that name their object."""
REPEATED_WITHIN_SECONDS: Final = 60.0
KEY_REPEATED_WITHIN_SECONDS: Final = 3600.0
MAX_REMEMBERED: Final = 10_000
MAX_MODEL_NAME: Final = 100


class Repeats:
    """Remembers what happened within the last `seconds`, at most `MAX_REMEMBERED` things: then the oldest is forgotten."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._until: dict[Hashable, float] = {}

    def is_new(self, thing: Hashable) -> bool:
        """Whether it did not happen before. Now it did."""
        now = self._clock()
        if self._until.get(thing, 0.0) > now:
            return False
        self._until.pop(thing, None)
        self._until[thing] = now + self._seconds
        if len(self._until) > MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        return True


class AccessRecorder:
    """Passes accesses to the trail: looks of an actor at one thing once a minute, uses of a key from a network once an hour."""

    def __init__(
        self, trail: AccessTrail, trusted_proxies: Sequence[IPv4Network | IPv6Network], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trail, self._trusted_proxies = trail, trusted_proxies
        self._looks, self._keys = Repeats(REPEATED_WITHIN_SECONDS, clock), Repeats(KEY_REPEATED_WITHIN_SECONDS, clock)

    def record(self, scope: Any, status: int) -> None:
        """Record the accesses of a request that gets a response with this status, or would get it over HTTP. Never raises."""
        try:
            self._record(scope, status)
        except Exception:  # the trail must not fail a request
            log.exception("access not recorded")

    def _record(self, scope: Any, status: int) -> None:
        notes: Notes = scope["state"].get(NOTES) or Notes()
        actor = notes.actor or scope.get("user")
        actor = actor if isinstance(actor, Actor) else None
        uses_key = actor is not None and status != 401 and (actor.key is not None or actor.kind == "service")
        kind = _kind(scope, status, actor, notes)
        if kind is None and not uses_key:
            return
        address = peer_of(scope, self._trusted_proxies)
        network = network_of(address)
        if uses_key and actor is not None and self._keys.is_new((actor.key or actor.id, network)):
            self._trail.record(_access(scope, AccessKind.KEY_USE, AccessOutcome.ALLOWED, actor, Notes(), address, network))
        if kind is None:
            return
        access = _access(scope, kind, _outcome(status), actor, notes, address, network)
        if kind is AccessKind.NOT_FOUND and access.object_id is None:
            return
        if kind is AccessKind.ADMIN_READ and access.object_id == access.actor_id:
            return
        if access.outcome is not AccessOutcome.ALLOWED or self._is_new_look(access):
            self._trail.record(access)

    def _is_new_look(self, access: Access) -> bool:
        return self._looks.is_new((access.actor_id, access.key_id, access.kind, access.object_id or access.route))


def _kind(scope: Any, status: int, actor: Actor | None, notes: Notes) -> AccessKind | None:
    route = str(scope.get("path_template") or "")
    if status in {401, 429} and route in SIGN_IN_ROUTES:
        return AccessKind.SIGN_IN
    if status == 401:
        has_credential = route in TOKEN_ROUTES or any(name == b"authorization" for name, _ in scope["headers"])
        return AccessKind.NOT_AUTHENTICATED if has_credential else None
    if status == 400 and notes.code == "invalid_link":
        return AccessKind.NOT_AUTHENTICATED
    if status == 403:
        return AccessKind.FORBIDDEN
    if status == 404:
        is_visible = notes.was_found or notes.dataset_id is not None or notes.owner_id is not None  # only a part is missing, as a preview
        names_object = notes.missing is not None or (bool(scope.get("path_params")) and not route.startswith(BLOB_ROUTE))
        return AccessKind.NOT_FOUND if actor is not None and names_object and not is_visible else None
    if _method(scope) != "GET" or not (200 <= status < 300 or status == 304):
        return None
    if route.startswith(BLOB_ROUTE):
        return notes.kind
    if (kind_of_look := LOOKING_ROUTES.get(route.rpartition("/")[2])) is not None:
        return kind_of_look
    return AccessKind.ADMIN_READ if _is_administrators_read(route, actor, notes) else None


def _is_administrators_read(route: str, actor: Actor | None, notes: Notes) -> bool:
    """Whether an administrator read what another person owns, or a list of it."""
    if actor is None or actor.kind != "user" or actor.role is not Role.ADMIN or notes.owner_id == actor.id:
        return False
    return route.startswith("/api/") and not route.startswith(OF_NOBODY)


def _outcome(status: int) -> AccessOutcome:
    if status == 429:
        return AccessOutcome.THROTTLED
    return AccessOutcome.REFUSED if status >= 400 else AccessOutcome.ALLOWED


def _access(scope: Any, kind: AccessKind, outcome: AccessOutcome, actor: Actor | None, notes: Notes, address: str, network: str) -> Access:
    noun, object_id, dataset_id = (notes.noun, notes.object_id, notes.dataset_id) if notes.object_id else _object(scope, notes)
    if kind is AccessKind.NOT_FOUND and notes.missing is not None:
        noun, object_id = notes.missing
        dataset_id = object_id if noun == "dataset" else None
    if kind is AccessKind.KEY_USE:
        noun, object_id, dataset_id = "", None, None
    person = actor.id if actor is not None and actor.kind in PEOPLE else None
    if actor is None and notes.person is not None:
        person, noun, object_id = notes.person, "user", notes.person
    return Access(
        at=utc_now(),
        kind=kind,
        outcome=outcome,
        actor_id=actor.id if actor else None,
        actor_kind=actor.kind if actor else "anonymous",
        key_id=actor.key if actor else None,
        noun=noun,
        object_id=object_id,
        dataset_id=dataset_id,
        route=f"{_method(scope)} {scope.get('path_template') or ''}",
        request_id=str(scope["state"].get("request_id", "")),
        address=address,
        network=network,
        person=person,
    )


def _method(scope: Any) -> str:
    """A WebSocket is opened with GET."""
    return str(scope.get("method", "GET"))


def _object(scope: Any, notes: Notes) -> tuple[str, UUID | None, UUID | None]:
    """The noun, the id and the dataset of what a request is about, by the parameters of its path, or the filters of its query."""
    parameters: dict[str, Any] = scope.get("path_params") or {}
    route = str(scope.get("path_template") or "")
    dataset = parameters.get("dataset_id") if isinstance(parameters.get("dataset_id"), UUID) else notes.dataset_id
    for name, value in parameters.items():
        if isinstance(value, UUID):
            noun = name.removesuffix("_id")
            return NOUNS.get(noun, noun), value, dataset
        if isinstance(value, str) and route.startswith(MODEL_ROUTES) and len(value) <= MAX_MODEL_NAME:
            return "model", model_id(value), None
    return _filtered(scope, dataset)


def _filtered(scope: Any, dataset: UUID | None) -> tuple[str, UUID | None, UUID | None]:
    if not scope.get("query_string"):
        return "", None, dataset
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    for name in LISTS_OF:
        for text in query.get(name, ())[:1]:
            try:
                found = UUID(text)
            except ValueError:
                continue
            return name.removesuffix("_id"), found, found if name == "dataset_id" else dataset
    return "", None, dataset
