"""One operation of the API, and what follows from its method, path and handler."""

from typing import Any, Final, NamedTuple

from litestar.handlers import HTTPRouteHandler

Json = dict[str, Any]

METHODS: Final = ("POST", "GET", "PUT", "PATCH", "DELETE")  # in working order

QUERIES_BY_POST: Final = {"policiesPreview"}
WITHOUT_COMMAND_HEADERS: Final = {
    "sessions",  # their results hold tokens, which are not kept for a repeat
    "accounts",  # their callers have no session
    "inference",  # nothing is recorded
}
WITHOUT_MIN_POSITION: Final = {
    "serviceAccountsOne",
    "usersMe",
    "imagesBlob",
    "auditListed",
    "auditState",
    "modelsPackage",
    "sessionsListed",
    "sessionsOfUser",
}  # they read the log, or show what is needed at once
TAGS_WITHOUT_MIN_POSITION: Final = {"events", "health", "inference"}
WITHOUT_IF_MATCH: Final = {"devicesReport"}  # a sign of life does not depend on other changes
POST_WITH_IF_MATCH: Final = {"classificationsCancel", "keysRotate", "modelsRetire"}


class Operation(NamedTuple):
    """A handler under one path and method, and its place in the document."""

    id: str
    path: str
    method: str
    handler: HTTPRouteHandler
    body: Json

    @property
    def tag(self) -> str:
        return str(self.body["tags"][0])

    @property
    def is_open(self) -> bool:
        return bool(self.handler.opt.get("exclude_from_auth"))

    @property
    def is_command(self) -> bool:
        return self.method != "GET" and self.tag not in WITHOUT_COMMAND_HEADERS and self.id not in QUERIES_BY_POST

    @property
    def takes_if_match(self) -> bool:
        by_method = self.is_command and self.method != "POST" and self.id not in WITHOUT_IF_MATCH
        return by_method or self.id in POST_WITH_IF_MATCH

    @property
    def takes_min_position(self) -> bool:
        return self.method == "GET" and self.tag not in TAGS_WITHOUT_MIN_POSITION and self.id not in WITHOUT_MIN_POSITION
