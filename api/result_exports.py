"""Exports of results: one row for each result, as CSV or JSON."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from api.request import from_row
from api.spreadsheets import csv_text, list_text, scores_text
from domain.classification import Verdict
from domain.values import ImageWarning
from projections.models import Model, ModelVersion
from projections.results import ReadResult


class ExportFormat(StrEnum):
    """How results are exported."""

    CSV = "csv"
    JSON = "json"


MEDIA_TYPES: Final = {ExportFormat.CSV: "text/csv", ExportFormat.JSON: "application/json"}


class ExportedResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a model found in one image, with the label in words and the unit of the number."""

    path: str | None
    filename: str
    label: str
    labels: tuple[str, ...]
    label_text: str
    confidence: float
    verdict: Verdict
    value: float | None
    unit: str
    model_name: str
    model_version: int
    warnings: tuple[ImageWarning, ...]
    scores: dict[str, float]
    result_version: int
    is_newest: bool
    reused: UUID | None
    created_at: datetime
    id: UUID
    classification_id: UUID
    image_id: UUID
    dataset_id: UUID


class ModelVersions:
    """The versions that name labels and units of results."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._versions = {(model.name, version.number): version for model in models for version in model.versions}

    def exported(self, row: ReadResult) -> ExportedResult:
        version: ModelVersion | None = self._versions.get((row.model_name, row.model_version))
        label_text = version.label_texts.get(row.label, "") if version else ""
        return from_row(row, ExportedResult, label_text=label_text, unit=version.unit if version else "")


async def exported(pages: AsyncIterator[Sequence[ExportedResult]], export_format: ExportFormat) -> AsyncIterator[str]:
    """The text of an export, page by page."""
    started = False
    async for page in pages:
        yield _csv(page, header=not started) if export_format is ExportFormat.CSV else _json(page, started=started)
        started = started or bool(page)
    if export_format is ExportFormat.JSON:
        yield "\n]\n" if started else "[]\n"


def _json(page: Sequence[ExportedResult], *, started: bool) -> str:
    objects = ",\n".join(msgspec.json.encode(one).decode() for one in page)
    return f"{',' if started else '['}\n{objects}" if objects else ""


def _csv(page: Sequence[ExportedResult], *, header: bool) -> str:
    return csv_text(ExportedResult.__struct_fields__, map(_cells, page), header=header)


def _cells(one: ExportedResult) -> Mapping[str, object]:
    warnings = list_text(warning.code for warning in one.warnings)
    return {**msgspec.to_builtins(one), "labels": list_text(one.labels), "warnings": warnings, "scores": scores_text(one.scores)}
