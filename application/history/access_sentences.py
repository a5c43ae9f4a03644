"""Sentences for the trail of access: who was refused, and who read what, with current names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final
from uuid import UUID

from application.history.access_aims import AIMS
from application.history.access_records import AccessKind, AccessOutcome, ShownAccess
from application.history.trail_sentences import names_in
from application.ports import EventStore

WITHOUT_NAME: Final[Mapping[str, str]] = {
    "classification": "a job",
    "result": "a result",
    "session": "a session",
    "invitation": "an invitation",
    "registration": "a registration",
    "model_check": "a check of a model package",
    "policy": "a policy",
}
"""Nouns whose things have no name."""
NAMED: Final[Mapping[str, tuple[str, str]]] = {
    "image": ("", "an image"),
    "dataset": ("the dataset ", "a dataset"),
    "user": ("the account of ", "an account"),
    "device": ("the device ", "a device"),
    "model": ("the model ", "a model"),
    "team": ("the team ", "a team"),
    "service_account": ("the service account ", "a service account"),
    "key": ("the key ", "a key"),
}
"""What precedes the name of a thing, and the words for one without a known name."""
SAME_NOUNS: Final[Mapping[str, str]] = {"api_key": "key", "service": "service_account", "": "thing"}
"""Nouns of records, if `AIMS` calls them otherwise."""
WITHOUT_OBJECT: Final[Mapping[str, str]] = {
    "of": "",
    "thing": "something",
    **WITHOUT_NAME,
    **{noun: otherwise for noun, (_, otherwise) in NAMED.items()},
}
"""The words in `AIMS` if a record names no such object."""
UNKNOWN_AIM: Final = "do something that only another release can describe"
READ: Final = "read "
LINKS: Final = (
    "/account/",
    "/setup",
    "/api/auth/verify",
    "/api/auth/reset-password",
    "/api/auth/confirm-email",
    "/api/auth/accept-invitation",
    "/api/auth/bootstrap",
)
"""Routes that the links of mails, and the address for the first administrator, lead to."""
MORE: Final[Mapping[AccessKind, str]] = {
    AccessKind.SIGN_IN: "refused sign-ins",
    AccessKind.NOT_AUTHENTICATED: "requests with an invalid token",
    AccessKind.FORBIDDEN: "forbidden requests",
    AccessKind.NOT_FOUND: "requests for things that were not found",
    AccessKind.PREVIEW: "looks at images",
    AccessKind.DOWNLOAD: "downloads",
    AccessKind.EXPORT: "exports",
    AccessKind.KEY_USE: "uses of keys",
    AccessKind.ADMIN_READ: "reads by administrators",
}
ACTORS: Final[Mapping[str, str]] = {"user": "A user", "service": "A service", "pending": "A person whose address is not verified"}


def names_for(accesses: Iterable[ShownAccess], log: EventStore) -> dict[UUID, str]:
    """The names of the actors, keys, objects and datasets of accesses. Takes two queries."""
    ids = {one for access in accesses for one in (access.actor_id, access.key_id, access.object_id, access.dataset_id) if one}
    return names_in((), ids, log)


def access_sentence(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    """One line for a record."""
    if not access.request_id:
        return f"{access.count:,} more {MORE[access.kind]}{_origin(access)}"
    return SENTENCES[access.kind](access, names)


def actor_of(actor_id: UUID | None, kind: str, names: Mapping[UUID, str]) -> str:
    """An actor in words, at the beginning of a sentence."""
    name = names.get(actor_id, "") if actor_id else ""
    if kind == "service" and name:
        return f"The service account {name}"
    return name or ACTORS.get(kind, "Somebody")


def key_of(key: UUID | None, names: Mapping[UUID, str]) -> str:
    """Such as ` with the key of microscope-3`; empty without a key."""
    return f" with the key {names.get(key, '')}".rstrip() if key else ""


def _who(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    return actor_of(access.actor_id, access.actor_kind, names)


def _origin(access: ShownAccess) -> str:
    return f" from {access.address}" if access.address else ""


def _noun(access: ShownAccess) -> str:
    return SAME_NOUNS.get(access.noun, access.noun)


def _thing(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    """The object in words, such as `scan-12.tif (dataset Biopsies)`."""
    noun, name = _noun(access), names.get(access.object_id, "") if access.object_id else ""
    if noun == "user" and access.object_id and access.object_id == access.actor_id:
        return "their own account"
    if noun in NAMED:
        before, otherwise = NAMED[noun]
        thing = f"{before}{name}" if name else otherwise
    else:
        thing = WITHOUT_NAME.get(noun) or name or WITHOUT_OBJECT["thing"]
    return f"{thing}{_of_dataset(access, names)}"


def _of_dataset(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    dataset = access.dataset_id if access.dataset_id != access.object_id else None
    name = names.get(dataset, "") if dataset else ""
    return f" (dataset {name})" if name else ""


def _sign_in(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    if access.outcome is AccessOutcome.THROTTLED:
        return f"Somebody tried to sign in too often{_origin(access)}"
    account = f"as {names.get(access.object_id, 'a user')}" if access.object_id else "to an unknown account"
    return f"Somebody tried to sign in {account}{_origin(access)}, and was refused"


def _not_authenticated(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    if access.route.partition(" ")[2].startswith(LINKS):
        return f"Somebody opened a link that does not work{_origin(access)}"
    owner = f" of {names.get(access.object_id, 'a user')}" if access.object_id and access.noun == "user" else ""
    return f"Somebody used an invalid token{owner}{_origin(access)}"


def _forbidden(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    return f"{_who(access, names)} tried to {_aim(access, names)}{key_of(access.key_id, names)}, and was refused"


def _not_found(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    thing = _thing(access, names)
    aim = _aim(access, names) if access.route in AIMS else f"{READ}{thing}"
    tried = f"asked for {aim.removeprefix(READ)}" if aim.startswith(READ) else f"tried to {aim}"
    end = "found nothing" if thing in aim else f"did not find {thing}"
    return f"{_who(access, names)} {tried}{key_of(access.key_id, names)}, and {end}"


def _aim(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    """What the request was for, in words that follow `tried to`."""
    words = dict(WITHOUT_OBJECT)
    if access.object_id:
        thing = _thing(access, names)
        words |= {_noun(access): thing, "thing": thing, "of": f" of {thing}"}
    return AIMS.get(access.route, UNKNOWN_AIM).format_map(words)


def _looked(words: str) -> Callable[[ShownAccess, Mapping[UUID, str]], str]:
    return lambda access, names: f"{_who(access, names)} {words} {_thing(access, names)}{key_of(access.key_id, names)}"


def _exported(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    of = f" of {_thing(access, names)}" if access.object_id else ""
    return f"{_who(access, names)} exported results{of}{key_of(access.key_id, names)}"


def _key_used(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    credential = f"the key {names.get(access.key_id, '')}".rstrip() if access.key_id else "a token"
    return f"{_who(access, names)} used {credential}{_origin(access)}"


def _admin_read(access: ShownAccess, names: Mapping[UUID, str]) -> str:
    aim = _aim(access, names)
    read = aim if aim.startswith(READ) else f"{READ}{_thing(access, names)}"
    return f"{_who(access, names)} {read} as an administrator{key_of(access.key_id, names)}"


SENTENCES: Final[Mapping[AccessKind, Callable[[ShownAccess, Mapping[UUID, str]], str]]] = {
    AccessKind.SIGN_IN: _sign_in,
    AccessKind.NOT_AUTHENTICATED: _not_authenticated,
    AccessKind.FORBIDDEN: _forbidden,
    AccessKind.NOT_FOUND: _not_found,
    AccessKind.PREVIEW: _looked("looked at"),
    AccessKind.DOWNLOAD: _looked("downloaded"),
    AccessKind.EXPORT: _exported,
    AccessKind.KEY_USE: _key_used,
    AccessKind.ADMIN_READ: _admin_read,
}
"""One sentence for each kind."""
