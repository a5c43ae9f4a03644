"""Jobs as the API has them: read for the command line, and printed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec
from rich.console import Console

from api.cli.client.api_client import Client, RequestRefused
from api.cli.client.job_progress import after_interruption, follow, how_to_watch, progress_bars, speed
from api.cli.client.lookups import dataset_id, device_id
from api.cli.client.registry import NothingNamed
from api.cli.moments import short_moment
from api.cli.output import Column, out, print_fields, print_message, print_table
from api.cli.shapes import Job, JobDetails, JobFailure, RetriedJob, StartedJob
from domain.classification import JobStatus
from domain.values import printable

JOBS: Final = "/api/classifications"
MAX_FAILURES_SHOWN: Final = 20
NONE: Final = "-"


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def read_jobs(client: Client, *, status: str | None, dataset: str | None, mine: bool, maximum: int) -> list[Job]:
    """The newest `maximum` jobs. `dataset` is a name or an id. Raises NothingNamed and RequestRefused."""
    home = None if dataset is None else dataset_id(client, dataset)
    found = client.all(f"{JOBS}/", maximum=maximum, status_filter=status, dataset_id=home, mine=mine or None)
    return msgspec.convert(found, list[Job])


def id_of_job(client: Client, job: object) -> str:
    """The given id, or that of the newest job of the account. Raises NothingNamed if it has none."""
    if job is not None:
        return str(job)
    newest = read_jobs(client, status=None, dataset=None, mine=True, maximum=1)
    if not newest:
        raise NothingNamed("you have not started any job yet: give the id of a job")
    return str(newest[0].id)


def read_details(client: Client, job: str) -> JobDetails:
    """Raises RequestRefused."""
    failures = client.all(f"{JOBS}/{job}/failures")
    return msgspec.convert(client.get(f"{JOBS}/{job}") | {"failures": failures}, JobDetails)


def visible_job(client: Client, job: str) -> str:
    """The id, if you may see the job. Raises NothingNamed and RequestRefused."""
    try:
        return str(client.get(f"{JOBS}/{job}")["id"])
    except RequestRefused as refused:
        if refused.status != httpx.codes.NOT_FOUND:
            raise
        raise NothingNamed(f"there is no job {job} that you may see: `bioscope jobs list` lists those that you may") from None


# ---- changing ----------------------------------------------------------------------------------------------------------------------
def start(
    client: Client, *, images: Sequence[UUID], dataset: str | None, conditions: Mapping[str, Any], choices: Mapping[str, Any]
) -> StartedJob:
    """A job over a list of images, or over those of a dataset for which all `conditions` hold: fields of a filter, `device` a host name
    or an id. `dataset` is a name or an id. Raises NothingNamed and RequestRefused.
    """
    if dataset is None:
        chosen: dict[str, Any] = {"image_ids": [str(image) for image in images]}
    else:
        chosen = {"dataset_id": dataset_id(client, dataset)} | ({"filter": _filter(client, **conditions)} if conditions else {})
    return msgspec.convert(client.start_job({**chosen, **choices}), StartedJob)


def _filter(client: Client, *, device: str | None = None, **conditions: Any) -> dict[str, Any]:
    of_device = {} if device is None else {"device_id": device_id(client, device)}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in conditions.items()} | of_device


def cancel(client: Client, job: str) -> Job:
    """Raises RequestRefused."""
    return msgspec.convert(client.call("POST", f"{JOBS}/{job}/cancel").json(), Job)


def retry(client: Client, job: str) -> RetriedJob:
    """Raises RequestRefused."""
    return msgspec.convert(client.call("POST", f"{JOBS}/{job}/retry").json() | {"retry_of": job}, RetriedJob)


def watch(client: Client, job: str, console: Console) -> Job:
    """The job when it has ended, with a bar until then. Raises RequestRefused, JobNotVisible and httpx.TransportError."""
    with after_interruption(how_to_watch(job), console), progress_bars(console) as progress:
        return msgspec.convert(follow(client, job, 0, progress), Job)


def succeeded(job: Job) -> bool:
    """Whether each image has a result."""
    return job.status is JobStatus.COMPLETED and not job.failed


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_jobs(jobs: Sequence[Job]) -> None:
    if not jobs:
        print_message("No job matches.", console=out)
        return
    columns = [
        Column("job"),
        Column("status"),
        Column("model", wraps=True),
        Column("done", right=True),
        Column("started (UTC)"),
    ]
    print_table(
        columns, [(str(job.id), job.status, _model(job), _done(job), short_moment(job.created_at, now=datetime.now(UTC))) for job in jobs]
    )


def print_job(client: Client, job: JobDetails) -> None:
    """With its failures; `client` reads the names of their files."""
    optional = [
        ("reason", job.reason),
        ("speed", speed(msgspec.to_builtins(job))),
        ("deadline (UTC)", job.deadline and f"{job.deadline:%Y-%m-%d %H:%M:%S}"),
        ("retry of", job.retry_of and str(job.retry_of)),
    ]
    print_fields(
        [
            ("job", str(job.id)),
            ("status", job.status),
            ("model", f"{_model(job)}, sha256 {job.model_sha256[:12]}"),
            ("review below", f"{job.threshold:.1%}"),
            ("dataset", str(job.dataset_id or NONE)),
            *([("chosen", chosen)] if (chosen := _chosen(job)) else []),
            *([("image", str(job.image_id))] if job.image_id else []),
            ("priority", job.priority),
            ("results", f"{job.succeeded:,} of {job.images:,} images"),
            ("failures", f"{job.failed:,}"),
            ("started (UTC)", f"{job.created_at:%Y-%m-%d %H:%M:%S}"),
            ("changed (UTC)", f"{job.updated_at:%Y-%m-%d %H:%M:%S}"),
            *((name, text) for name, text in optional if text),
        ]
    )
    if job.failures:
        out.print()
        _print_failures(client, job.failures)


def _chosen(job: Job) -> str:
    """Which images of the dataset the job covers; empty if all."""
    if job.listed:
        return f"a list of {_counted(job.listed, 'image')}"
    conditions = msgspec.to_builtins(job.filter) if job.filter else {}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in conditions.items())


def outcome(job: Job) -> str:
    """Such as `Job ... completed: 118 results, 2 failures.`"""
    reason = f" ({job.reason})" if job.reason else ""
    return f"Job {job.id} {job.status}{reason}: {_counted(job.succeeded, 'result')}, {_counted(job.failed, 'failure')}."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _print_failures(client: Client, failures: Sequence[JobFailure]) -> None:
    shown = failures[:MAX_FAILURES_SHOWN]
    columns = [Column("file", wraps=True), Column("reason"), Column("in words", wraps=True)]
    files = _files(client, shown)
    print_table(columns, [(file, one.reason, printable(one.detail)) for file, one in zip(files, shown, strict=True)])
    if len(failures) > len(shown):
        print_message(f"and {len(failures) - len(shown):,} more: --json prints all")


def _files(client: Client, failures: Sequence[JobFailure]) -> Iterator[str]:
    """The paths of the images. The id stands for an image that was deleted, and for each if the key may not read images."""
    may_read = True
    for failure in failures:
        shown = str(failure.image_id)
        try:
            image = client.get(f"/api/images/{failure.image_id}") if may_read else {}
        except RequestRefused as refused:
            may_read = refused.status != httpx.codes.FORBIDDEN
            if refused.status not in {httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN}:
                raise
        else:
            shown = str(image.get("path") or image.get("filename") or shown)
        yield shown


def _model(job: Job) -> str:
    return f"{job.model_name}@{job.model_version}"


def _done(job: Job) -> str:
    return f"{job.succeeded + job.failed}/{job.images if job.planned else '?'}"
