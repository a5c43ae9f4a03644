"""Results as the API has them: read for the command line, and printed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from api.cli.client.api_client import Client
from api.cli.client.lookups import dataset_id, model_filter
from api.cli.client.policies import words
from api.cli.client.registry import NothingNamed
from api.cli.client.terminal import label_cell, number_text
from api.cli.output import Column, out, print_fields, print_message, print_table
from api.cli.shapes import FoundResult, Policy, ResultDetails
from domain.values import printable

RESULTS: Final = "/api/classification-results"
MAX_SCORES_SHOWN: Final = 20
BAR_WIDTH: Final = 30
MOMENT: Final = "%Y-%m-%d %H:%M"


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def query_of(client: Client, *, dataset: str | None, model: str | None, **conditions: Any) -> dict[str, Any]:
    """Parameters of the list and the export. `dataset` is a name or an id, `model` is `NAME` or `NAME@VERSION`.

    Raises NothingNamed and RequestRefused.
    """
    named = ({} if model is None else model_filter(client, model)) | (
        {} if dataset is None else {"dataset_id": dataset_id(client, dataset)}
    )
    return {name: value for name, value in (conditions | named).items() if value is not None}


def read_results(client: Client, query: Mapping[str, Any], *, maximum: int) -> list[FoundResult]:
    """The newest `maximum` results. Raises RequestRefused."""
    return msgspec.convert(client.all(f"{RESULTS}/", maximum=maximum, **query), list[FoundResult])


def read_result(client: Client, result: object, *, as_of: str | None = None) -> ResultDetails:
    """The result with this id, or the newest one, now or as it was at a time or position.

    Raises NothingNamed if there is none, and RequestRefused.
    """
    found = client.get(f"{RESULTS}/{_newest(client)['id'] if result is None else result}", as_of=as_of)
    job = client.get(f"/api/classifications/{found['classification_id']}")
    version = client.model_version(job["model_id"], found["model_version"])
    derived = client.get(f"{RESULTS}/{found['id']}/policy", as_of=as_of)
    versions = client.all(f"{RESULTS}/", image_id=found["image_id"], model_name=found["model_name"], versions="all")
    about = {
        "label_text": version.get("label_texts", {}).get(found["label"], ""),
        "unit": version.get("unit") or "",
        "model_sha256": job["model_sha256"],
        "threshold": job["threshold"],
        "original": derived["original"],
        "policy": derived["policy"],
        "versions": versions,
    }
    return msgspec.convert(found | about, ResultDetails)


def _newest(client: Client) -> dict[str, Any]:
    found = client.all(f"{RESULTS}/", maximum=1)
    if not found:
        raise NothingNamed("there is no result that you may see")
    return found[0]


def export(client: Client, query: Mapping[str, Any], export_format: str) -> Iterator[bytes]:
    """The file, piece by piece. Raises RequestRefused."""
    client.renew()
    return client.download(f"{RESULTS}/export", format=export_format, **query)


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_results(results: Sequence[FoundResult], *, with_ids: bool) -> None:
    if not results:
        print_message("No result matches.", console=out)
        return
    columns = [Column("file"), Column("label", wraps=True), Column(_number_title(results), right=True), Column("model")]
    rows = [
        (_file(one), label_cell(printable(", ".join(one.labels)), one.verdict), number_text(one), f"{one.model_name}@{one.model_version}")
        for one in results
    ]
    if with_ids:
        columns, rows = [Column("result"), *columns], [(str(one.id), *row) for one, row in zip(results, rows, strict=True)]  # type: ignore[misc]
    print_table(columns, rows)


def _number_title(results: Sequence[FoundResult]) -> str:
    titles = {"confidence" if one.value is None else "value" for one in results}
    return " or ".join(sorted(titles))


def print_result(result: ResultDetails) -> None:
    """Facts, scores as bars, and the versions."""
    in_words = f" ({result.label_text})" if result.label_text else ""
    measured = [("value", f"{number_text(result)} {result.unit}".rstrip())]
    print_fields(
        [
            ("result", str(result.id)),
            ("file", _file(result)),
            ("label", f"{result.label}{in_words}"),
            *([("labels", ", ".join(result.labels))] if len(result.labels) > 1 else []),
            ("verdict", result.verdict),
            *(measured if result.value is not None else [("confidence", number_text(result))]),
            *([("review below", f"{result.threshold:.1%}")] if result.policy is None else _derivation(result, result.policy)),
            ("model", f"{result.model_name}@{result.model_version}, sha256 {result.model_sha256[:12]}"),
            ("version", f"{result.result_version}, {'the newest' if result.is_newest else 'not the newest'} of this model for the image"),
            *([("repeats", str(result.reused))] if result.reused else []),
            ("recorded (UTC)", f"{result.created_at:%Y-%m-%d %H:%M:%S}"),
            ("job", str(result.classification_id)),
            ("image", str(result.image_id)),
            ("dataset", str(result.dataset_id)),
            *(("warning", warning.detail) for warning in result.warnings),
        ]
    )
    if result.value is None and result.scores:
        out.print()
        _print_scores(result)
    if len(result.versions) > 1:
        out.print()
        _print_versions(result.versions)


def _derivation(result: ResultDetails, policy: Policy) -> list[tuple[str, str]]:
    """The policy in force, and what the model said."""
    said = result.original
    number = [] if result.value is not None else [f"{said.confidence:.1%}"]
    return [
        ("policy", f"of the {policy.scope.value}: {words(policy.rules)}"),
        ("model said", ", ".join([said.label, *number, said.verdict])),
    ]


def _print_scores(result: FoundResult) -> None:
    scores = sorted(result.scores.items(), key=lambda scored: -scored[1])
    shown = scores[:MAX_SCORES_SHOWN]
    columns = [Column("label", wraps=True), Column("score", right=True), Column("")]
    print_table(columns, [(label, f"{score:.1%}", "█" * round(score * BAR_WIDTH)) for label, score in shown])
    if len(scores) > len(shown):
        print_message(f"and {len(scores) - len(shown):,} more: --json prints all")


def _print_versions(versions: Sequence[FoundResult]) -> None:
    columns = [
        Column("no.", right=True),
        Column("recorded (UTC)"),
        Column("model"),
        Column("label", wraps=True),
        Column("result"),
    ]
    rows = [
        (str(one.result_version), f"{one.created_at:{MOMENT}}", f"@{one.model_version}", f"{one.label} {number_text(one)}", str(one.id))
        for one in versions
    ]
    print_table(columns, rows)


def _file(result: FoundResult) -> str:
    return printable(result.path or result.filename)
