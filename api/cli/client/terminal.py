"""Progress and results of a classification run, for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from api.cli.client.api_client import Client, UploadResult
from api.cli.client.image_folder import ImageFile
from api.cli.client.job_progress import after_interruption, follow, how_to_watch, progress_bars
from api.cli.output import UNBROKEN, Column, out, print_message, print_table
from api.spreadsheets import csv_text, list_text, scores_text
from domain.model import NONE_APPLIES
from domain.values import ImageWarning

AFTER_THE_MODEL = ("labels", "scores", "unit")
VERDICTS = {"clear": "clear", "needs_review": "to review", "out_of_domain": "out of domain"}
COLOURS = {"clear": "green", "needs_review": "yellow", "out_of_domain": "magenta"}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for one image. Fields without a value are empty or 0."""

    file: Annotated[str, msgspec.Meta(description="path below the folder")]
    image_id: str = ""
    label: str = ""
    confidence: Annotated[float, msgspec.Meta(description="from 0 to 1; 0 for a value")] = 0.0
    verdict: Annotated[str, msgspec.Meta(description="`clear`, `needs_review` or `out_of_domain`")] = ""
    truth: Annotated[str, msgspec.Meta(description="label in manifest.csv")] = ""
    latency_ms: Annotated[float, msgspec.Meta(description="from the start of the job to this result")] = 0.0
    error: Annotated[str, msgspec.Meta(description="why there is no result")] = ""
    warnings: Annotated[tuple[ImageWarning, ...], msgspec.Meta(description="warnings about the file")] = ()
    value: Annotated[float | None, msgspec.Meta(description="number that was measured; null for a label")] = None
    labels: Annotated[tuple[str, ...], msgspec.Meta(description="all labels that apply, that with the highest score first")] = ()
    scores: Annotated[dict[str, float], msgspec.Meta(description="score of each label, from 0 to 1")] = {}

    @property
    def is_correct(self) -> bool:
        return self.label == self.truth

    @property
    def warning_codes(self) -> str:
        return list_text(warning.code for warning in self.warnings)


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A job over the images of a folder."""

    job_id: Annotated[str, msgspec.Meta(description="empty if no image was accepted")]
    status: Annotated[str, msgspec.Meta(description="`completed`, `failed` or `cancelled`")]
    lines: Annotated[tuple[Line, ...], msgspec.Meta(description="one for each image")]
    seconds: Annotated[float, msgspec.Meta(description="duration of the job")]
    model_name: Annotated[str, msgspec.Meta(description="empty if no image was accepted")] = ""
    model_version: Annotated[int, msgspec.Meta(description="its number in this installation; 0 if no image was accepted")] = 0
    unit: Annotated[str, msgspec.Meta(description="unit of the numbers; empty if there is none")] = ""

    @property
    def failures(self) -> int:
        return sum(1 for line in self.lines if line.error)

    @property
    def is_measured(self) -> bool:
        """Whether the results are numbers, which are neither right nor wrong labels."""
        return any(line.value is not None for line in self.lines)

    @property
    def labelled(self) -> tuple[Line, ...]:
        """The images whose true label is known."""
        return () if self.is_measured else tuple(line for line in self.lines if line.truth)

    @property
    def accuracy(self) -> float | None:
        """The share of correct labels among the labelled images; None if there are none."""
        return sum(line.is_correct for line in self.labelled) / len(self.labelled) if self.labelled else None


def classify(
    client: Client,
    images: Sequence[ImageFile],
    *,
    dataset_name: str,
    truth: Mapping[str, str],
    console: Console,
    choices: Mapping[str, Any] = MappingProxyType({}),
) -> RunReport:
    """Upload, run, watch, collect. `truth` has the labels of images by their names; `choices` are as in `Client.run`."""
    dataset = client.create_dataset(dataset_name)
    with after_interruption(f"The uploaded images are in the dataset {dataset}.", console), progress_bars(console) as progress:
        uploaded = _upload(client, dataset, images, progress)
        accepted = [upload for upload in uploaded if upload.id]
        if not accepted:
            return RunReport(job_id="", status="failed", lines=tuple(_refused(upload, truth) for upload in uploaded), seconds=0.0)
        job = client.run(dataset, choices=choices)
        with after_interruption(how_to_watch(job), console):
            state = follow(client, job, len(accepted), progress)
    results = {result["image_id"]: result for result in client.results(job)}
    errors = _errors(client, dataset, job, {upload.id for upload in accepted} - results.keys())
    started = datetime.fromisoformat(state["created_at"])
    used = client.model_version(state["model_id"], state["model_version"])
    lines = tuple(_line(upload, results, errors, truth, started, used.get("label_threshold")) for upload in uploaded)
    ended = datetime.fromisoformat(state["updated_at"])
    return RunReport(
        job_id=job,
        status=state["status"],
        lines=lines,
        seconds=(ended - started).total_seconds(),
        model_name=state["model_name"],
        model_version=state["model_version"],
        unit=used.get("unit") or "",
    )


def print_results(report: RunReport, *, console: Console = out) -> None:
    """A table that fits 80 columns as long as the paths are short; warnings have a table of their own.

    Measured numbers stand in place of the confidence, which they do not have.
    """
    with_truth = any(line.truth for line in report.lines)
    columns = [Column("file"), Column("label", wraps=True), *([Column("truth", wraps=True)] if with_truth else [])]
    unit = f" ({report.unit})" if report.unit else ""
    columns.append(Column(f"value{unit}" if report.is_measured else "confidence", right=True))
    print_message(_heading(report), console=console)
    print_table(columns, [_cells(line, with_truth=with_truth) for line in report.lines], console=console)
    warnings = [(line.file, warning.detail) for line in report.lines for warning in line.warnings]
    if warnings:
        console.print()
        print_table([Column("file"), Column("warning", wraps=True)], warnings, console=console)


def as_csv(report: RunReport) -> str:
    first = [name for name in Line.__struct_fields__ if name not in AFTER_THE_MODEL]
    model = {"model_name": report.model_name, "model_version": report.model_version}
    return csv_text((*first, *model, *AFTER_THE_MODEL), (_csv_row(line) | model | {"unit": report.unit} for line in report.lines))


def _csv_row(line: Line) -> dict[str, object]:
    texts = {"warnings": line.warning_codes, "labels": list_text(line.labels), "scores": scores_text(line.scores)}
    return {**msgspec.to_builtins(line), **texts}


def summary(report: RunReport) -> str:
    rate = f"; {len(report.lines) / report.seconds:.0f} images/s" if report.seconds else ""
    return f"{outcomes(report)}{rate} (job {report.job_id or 'none'}: {report.status})"


def outcomes(report: RunReport) -> str:
    """Such as `15 images: 9 clear, 1 to review, 1 out of domain, 4 failures; accuracy 50.0% of 2 labelled`."""
    verdicts = Counter(line.verdict for line in report.lines if not line.error)
    counts = [f"{number} {VERDICTS.get(verdict, verdict)}" for verdict, number in sorted(verdicts.items())]
    if report.failures:
        counts.append(_counted(report.failures, "failure"))
    accuracy = "" if report.accuracy is None else f"; accuracy {report.accuracy:.1%} of {len(report.labelled)} labelled"
    return f"{_counted(len(report.lines), 'image')}: {', '.join(counts)}{accuracy}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _heading(report: RunReport) -> str:
    if not report.job_id:
        return "No image was classified"
    return f"Classification {report.job_id}: {report.model_name} version {report.model_version}"


def _upload(client: Client, dataset: str, images: Sequence[ImageFile], progress: Progress) -> list[UploadResult]:
    bar = progress.add_task("upload", total=len(images), speed="")
    uploaded = []
    for upload in client.upload_all(dataset, images):
        uploaded.append(upload)
        progress.advance(bar)
    return uploaded


def _errors(client: Client, dataset: str, job: str, missing: set[str]) -> dict[str, str]:
    """Why images have no result. The job does not cover an image that was rejected before the job was planned."""
    if not missing:
        return {}
    failures = {failure["image_id"]: failure["detail"] for failure in client.failures(job)}
    if missing <= failures.keys():
        return failures
    rejections = {image["id"]: image["detail"] or image["reason"] for image in client.images(dataset) if image["status"] == "rejected"}
    return rejections | failures


def _line(
    upload: UploadResult,
    results: Mapping[str, dict[str, Any]],
    errors: Mapping[str, str],
    truth: Mapping[str, str],
    started: datetime,
    label_threshold: float | None,
) -> Line:
    if not upload.id:
        return _refused(upload, truth)
    result = results.get(upload.id)
    if result is None:
        return Line(
            file=upload.image.shown, image_id=upload.id, truth=truth.get(upload.image.name, ""), error=errors.get(upload.id, "no result")
        )
    latency = datetime.fromisoformat(result["created_at"]) - started
    return Line(
        file=upload.image.shown,
        image_id=upload.id,
        label=result["label"],
        confidence=result["confidence"],
        verdict=result["verdict"],
        truth=truth.get(upload.image.name, ""),
        latency_ms=round(latency.total_seconds() * 1000, 1),
        warnings=msgspec.convert(result["warnings"], tuple[ImageWarning, ...]),
        value=result.get("value"),
        labels=_applying(result, label_threshold),
        scores=result.get("scores", {}),
    )


def _applying(result: Mapping[str, Any], label_threshold: float | None) -> tuple[str, ...]:
    """The label of the result, and after it those others whose score reaches the threshold, if there is one."""
    if label_threshold is None:
        return (result["label"],)
    highest_first = sorted(result["scores"].items(), key=lambda scored: -scored[1])
    others = (label for label, score in highest_first if score >= label_threshold and label not in {result["label"], NONE_APPLIES})
    return (result["label"], *others)


def _refused(upload: UploadResult, truth: Mapping[str, str]) -> Line:
    return Line(file=upload.image.shown, truth=truth.get(upload.image.name, ""), error=upload.refused)


def _cells(line: Line, *, with_truth: bool) -> list[Text]:
    is_wrong = line.value is None and not line.error and not line.is_correct
    truth = [Text(line.truth, "red" if is_wrong else "")] if with_truth else []
    if line.error:
        return [Text(line.file), Text(line.error, "red"), *truth, Text()]
    return [Text(line.file), label_cell(", ".join(line.labels) or line.label, line.verdict), *truth, Text(number_text(line))]


def label_cell(labels: str, verdict: str) -> Text:
    """The labels in the colour of the verdict, which follows them unless it is clear."""
    text = labels if verdict == "clear" else f"{labels} ({verdict.replace('_', UNBROKEN)})"
    return Text(text, COLOURS.get(verdict, "white"))


class Measured(Protocol):
    """What has a confidence, or a value in its place."""

    @property
    def confidence(self) -> float: ...
    @property
    def value(self) -> float | None: ...


def number_text(found: Measured) -> str:
    return f"{found.confidence:.1%}" if found.value is None else f"{found.value:.6g}"
