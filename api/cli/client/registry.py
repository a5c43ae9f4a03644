"""Models as the API knows them: read for the command line, and printed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from api.cli.client.api_client import Client, RequestRefused
from api.cli.output import Column, out, print_fields, print_message, print_table
from api.cli.shapes import ModelChange, RegisteredModel, RegisteredVersion, VersionCheck
from domain.model import PRODUCTION
from domain.values import printable

MODELS: Final = "/api/models"
PAGE_SIZE: Final = 200
MAX_SUMMARY_LABELS: Final = 4
NONE: Final = "-"
PAGE_WIDTH: Final = 100
"""Of a model in a file or a pipe: it is prose for people, and scripts read it as JSON."""


class NothingNamed(Exception):
    """A model or version that does not exist; the text names those that do."""


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def read_models(client: Client, *, retired: bool) -> list[RegisteredModel]:
    return msgspec.convert(client.get(MODELS, retired=retired), list[RegisteredModel])


def read_model(client: Client, name: str, *, as_of: str | None = None) -> RegisteredModel:
    """`name` may be the id, too. Raises NothingNamed if there is no such model, and RequestRefused."""
    query = {} if as_of is None else {"as_of": as_of}
    if name.strip("."):  # other names are parts of no path
        try:
            return msgspec.convert(client.get(f"{MODELS}/{_quoted(name)}", **query), RegisteredModel)
        except RequestRefused as refused:
            if refused.status != httpx.codes.NOT_FOUND or as_of is not None:
                raise
    names = ", ".join(model.name for model in read_models(client, retired=True))
    raise NothingNamed(f"there is no model {printable(name)!r}; choose one of: {names or 'none is registered'}")


def read_history(client: Client, name: str) -> list[ModelChange]:
    """All changes, oldest first, page by page."""
    changes: list[ModelChange] = []
    after: str | None = "0"
    while after is not None:
        answer = client.call("GET", f"{MODELS}/{_quoted(name)}/history", params={"after": after, "limit": PAGE_SIZE})
        changes += msgspec.convert(answer.json(), list[ModelChange])
        after = answer.headers.get("x-next-cursor")
    return changes


def find_version(model: RegisteredModel, wanted: str) -> RegisteredVersion:
    """The version with this number or alias. Raises NothingNamed."""
    numbers = {str(version.number): version for version in model.versions}
    found = numbers.get(str(model.aliases.get(wanted, wanted)))
    if found is None:
        aliases = ", ".join(f"{alias} ({number})" for alias, number in sorted(model.aliases.items()))
        raise NothingNamed(
            f"the model {model.name} has no version {printable(wanted)!r};"
            f" it has the versions {', '.join(numbers)} and the aliases {aliases or 'none'}"
        )
    return found


def find_number(model: RegisteredModel, wanted: str) -> RegisteredVersion:
    """The version with this number. Raises NothingNamed, also for an alias."""
    if wanted in model.aliases:
        raise NothingNamed(f"give a number; {wanted} is version {model.aliases[wanted]} of the model {model.name}")
    return find_version(model, wanted)


def differences(model: RegisteredModel, version: RegisteredVersion) -> tuple[str, ...]:
    """How the kind and the labels of `version` differ from those in production, as sentences. None if no version is in production."""
    current = next((one for one in model.versions if one.number == model.production), version)
    return tuple(f"{found} of version {current.number} in production: {how}" for found, how in _differences(current, version))


def _differences(current: RegisteredVersion, other: RegisteredVersion) -> Iterator[tuple[str, str]]:
    if other.kind != current.kind:
        yield "kind differs from that", f"{other.kind}, not {current.kind}"
    if other.labels != current.labels:
        added = tuple(label for label in other.labels if label not in current.labels)
        missing = tuple(label for label in current.labels if label not in other.labels)
        changes = [f"{what} {_some(labels)}" for what, labels in (("new", added), ("missing", missing)) if labels]
        yield "labels differ from those", "; ".join(changes) or "the same in another order"


def split_reference(reference: str) -> tuple[str, str | None]:
    """`pbc8@2` and `pbc8@candidate` name a version, `pbc8` names none."""
    name, at, version = reference.partition("@")
    return name, version if at else None


# ---- changing ----------------------------------------------------------------------------------------------------------------------
def declare(
    client: Client, name: str, *, labels: Sequence[str], label_texts: Mapping[str, str], review_below: float, description: str
) -> RegisteredVersion:
    """Declare an external classifier; the version. Raises RequestRefused."""
    body = {"name": name, "labels": labels, "label_texts": label_texts, "review_below": review_below, "description": description}
    return msgspec.convert(client.call("POST", f"{MODELS}/external", json=body).json(), RegisteredVersion)


def move_alias(client: Client, name: str, alias: str, number: int, reason: str) -> bool:
    """False if the alias points to the version already. Raises RequestRefused."""
    body = {"version": number, "reason": reason}
    answer = client.call("PUT", f"{MODELS}/{_quoted(name)}/aliases/{_quoted(alias)}", json=body)
    return "x-event-position" in answer.headers


def retire(client: Client, name: str, reason: str) -> None:
    """Raises RequestRefused."""
    client.call("POST", f"{MODELS}/{_quoted(name)}/retire", json={"reason": reason})


def download_package(client: Client, name: str, version: RegisteredVersion) -> Iterator[bytes]:
    """The zip file of a version. Raises RequestRefused, DamagedDownload."""
    return client.download(f"{MODELS}/{_quoted(name)}/versions/{version.number}/package")


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_models(models: list[RegisteredModel]) -> None:
    if not models:
        print_message("No model is registered.", console=out)
        return
    columns = [Column("model"), Column("production", right=True), Column("other aliases"), Column("versions", right=True)]
    rows = [
        (
            f"{model.name} (retired)" if model.retired else model.name,
            str(model.production or NONE),
            ", ".join(f"{alias} {number}" for alias, number in sorted(model.aliases.items()) if alias != PRODUCTION) or NONE,
            str(len(model.versions)),
            _some(shown_version(model).labels),
        )
        for model in models
    ]
    print_table([*columns, Column("labels", wraps=True)], rows)


def print_model(model: RegisteredModel, shown: RegisteredVersion | None) -> None:
    """`shown` is the version whose description and labels are printed; by default that in production, or the newest."""
    shown = shown or shown_version(model)
    print_fields(
        [
            ("model", f"{model.name} (retired)" if model.retired else model.name),
            ("description", shown.description or NONE),
            ("id", str(model.id)),
            ("aliases", ", ".join(f"{alias}: {number}" for alias, number in sorted(model.aliases.items())) or NONE),
            ("promoters", ", ".join(one.username or str(one.user_id) for one in model.promoters) or "administrators only"),
        ],
        most=PAGE_WIDTH,
    )
    out.print()
    print_table(
        [Column("version", right=True), Column("release"), Column("kind"), Column("added (UTC)"), Column("by"), Column("package")],
        [
            (
                str(version.number),
                version.release or NONE,
                version.kind,
                f"{version.added_at:%Y-%m-%d %H:%M}",
                version.added_by_username or ("a deleted account" if version.added_by else "a release"),
                version.package[:12] if version.package else "none",
            )
            for version in model.versions
        ],
        most=PAGE_WIDTH,
    )
    out.print()
    unit = f", in {shown.unit}" if shown.unit else ""
    print_message(f"Labels of version {shown.number}{unit}:", most=PAGE_WIDTH, console=out)
    for label in shown.labels:
        words = shown.label_texts.get(label)
        print_message(printable(f"  {label}: {words}" if words else f"  {label}"), most=PAGE_WIDTH, console=out)
    _print_checks(model)


def print_history(changes: list[ModelChange]) -> None:
    print_table(
        [Column("when (UTC)"), Column("who"), Column("what", wraps=True), Column("reason", wraps=True)],
        [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.by_username or "the system", _sentence(one), one.reason or "") for one in changes],
    )


def _print_checks(model: RegisteredModel) -> None:
    checks = [(version, check) for version in model.versions for check in version.checks]
    if not checks:
        return
    out.print()
    print_table(
        [Column("version", right=True), Column("checked (UTC)"), Column("environment", wraps=True), Column("check", wraps=True)],
        [(str(version.number), f"{check.at:%Y-%m-%d %H:%M}", _environment(check), _outcome(check)) for version, check in checks],
        most=PAGE_WIDTH,
    )


def _environment(check: VersionCheck) -> str:
    found = check.environment
    return f"{found.runtime}, {found.provider}, {found.cpu}" if found else NONE


def _outcome(check: VersionCheck) -> str:
    report = check.report
    if report is None:
        return f"failed: {check.detail}"
    difference = (
        "" if report.largest_difference is None else f", largest difference {report.largest_difference:.2g} of {report.tolerance:.2g}"
    )
    return f"passed{difference}, {report.run_seconds * 1000:.1f} ms an image"


def _sentence(change: ModelChange) -> str:
    somebody = change.username or str(change.user_id)
    match change.type:
        case "ModelVersionAdded":
            return f"added version {change.number}"
        case "ModelAliasMoved" if change.alias == PRODUCTION:
            return f"put version {change.number} into production"
        case "ModelAliasMoved":
            return f"moved the alias {change.alias} to version {change.number}"
        case "ModelRetired":
            return "retired the model"
        case "ModelPromoterAdded":
            return f"let {somebody} promote versions"
        case "ModelPromoterRemoved":
            return f"no longer lets {somebody} promote versions"
        case other:
            return other


def shown_version(model: RegisteredModel) -> RegisteredVersion:
    """The version in production, or the newest one."""
    return next((version for version in model.versions if version.number == model.production), model.versions[-1])


def _some(labels: tuple[str, ...]) -> str:
    more = len(labels) - MAX_SUMMARY_LABELS
    return ", ".join(labels[:MAX_SUMMARY_LABELS]) + (f", and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    """As one part of a path."""
    return quote(name, safe="", errors="replace")
