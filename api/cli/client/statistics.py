"""Statistics of results as the API has them: read for the command line, and printed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

import httpx
import msgspec

from api.cli.client.api_client import Client, RequestRefused
from api.cli.client.lookups import dataset_id, device_id, model_filter
from api.cli.output import Column, out, print_message, print_table
from api.cli.shapes import ResultGroup, ResultStatistics

NONE: Final = "-"
BAR_WIDTH: Final = 40
COLUMNS: Final[Mapping[str, tuple[Column, Callable[[ResultGroup], object]]]] = {
    "day": (Column("day"), lambda group: group.day),
    "model": (Column("model"), lambda group: group.model_name),
    "version": (Column("version", right=True), lambda group: group.model_version),
    "dataset": (Column("dataset"), lambda group: group.dataset_name or group.dataset_id),
    "device": (Column("device"), lambda group: group.device_id),
    "label": (Column("label"), lambda group: group.label),
    "verdict": (Column("verdict"), lambda group: group.verdict),
}
"""Of a table, in order: what results can be grouped by."""


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def read_statistics(client: Client, *, dataset: str | None, model: str | None, device: str | None, **query: str | None) -> ResultStatistics:
    """`dataset` is a name or an id, `device` a host name or an id, `model` is `NAME` or `NAME@VERSION`; `query` is sent as it is.

    Raises NothingNamed and RequestRefused.
    """
    filters = model_filter(client, model) if model else {}
    if dataset:
        filters["dataset_id"] = dataset_id(client, dataset)
    if device:
        filters["device_id"] = device_id(client, device)
    given = {name: value for name, value in query.items() if value is not None}
    return msgspec.convert(client.get("/api/statistics/results", **filters, **given), ResultStatistics)


def device_names(client: Client, found: ResultStatistics) -> dict[UUID, str]:
    """The host names of devices by id, as far as the account may read them. Raises RequestRefused."""
    if not any(group.device_id for group in found.groups):
        return {}
    try:
        return {UUID(device["id"]): device["hostname"] for device in client.all("/api/devices")}
    except RequestRefused as refused:
        if refused.status != httpx.codes.FORBIDDEN:
            raise
        return {}


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_statistics(found: ResultStatistics, devices: Mapping[UUID, str]) -> None:
    """A table of the groups, and the histogram of all of them together."""
    if not found.groups:
        print_message(f"There are no results from {found.first} to {found.last}.", console=out)
        return
    print_message(f"Results from {found.first} to {found.last} (UTC)", console=out)
    out.print()
    with_values = any(group.average_value is not None for group in found.groups)
    chosen = [COLUMNS[name] for name in COLUMNS if name in found.group_by]
    figures = ["results", "clear", "to review", "out of domain", "confidence", *(["value"] if with_values else [])]
    rows = [[*(_cell(value(group), devices) for _, value in chosen), *_figures(group, with_values=with_values)] for group in found.groups]
    print_table([*(column for column, _ in chosen), *(Column(title, right=True) for title in figures)], rows)
    _print_histogram([sum(bins) for bins in zip(*(group.confidence_histogram for group in found.groups), strict=True)])


def _cell(value: object, devices: Mapping[UUID, str]) -> str:
    if isinstance(value, UUID):
        return devices.get(value, str(value))
    return NONE if value is None else str(value)


def _figures(group: ResultGroup, *, with_values: bool) -> list[str]:
    counts = (group.count, group.verdicts.clear, group.verdicts.needs_review, group.verdicts.out_of_domain)
    confidence = NONE if group.average_confidence is None else f"{group.average_confidence:.1%}"
    value = NONE if group.average_value is None else f"{group.average_value:.6g}"
    return [*(f"{count:,}" for count in counts), confidence, *([value] if with_values else [])]


def _print_histogram(bins: Sequence[int]) -> None:
    """From the first bin with results to the last one."""
    filled = [number for number, count in enumerate(bins) if count]
    if not filled:
        return
    width = 100 // len(bins)
    shown = range(filled[0], filled[-1] + 1)
    rows = [(f"{number * width}-{(number + 1) * width}%", f"{bins[number]:,}", _bar(bins[number], max(bins))) for number in shown]
    out.print()
    print_table([Column("confidence", right=True), Column("results", right=True), Column("")], rows)


def _bar(count: int, largest: int) -> str:
    return "#" * -(-count * BAR_WIDTH // largest)
