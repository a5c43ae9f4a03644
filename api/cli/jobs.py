"""Commands for jobs, through the API: start them, follow them, cancel them, classify failed images again."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from api.cli.commands import EXAMPLE_ID, Choice, Id, argument, group, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import FAILED, WRONG_USE
from api.cli.job_options import job_options, require_model
from api.cli.moments import MOMENT_EXAMPLES, Moment
from api.cli.output import err, fail, print_json, print_message
from api.cli.shapes import Job, JobDetails, RetriedJob, StartedJob
from domain.classification import JobStatus, Verdict

if TYPE_CHECKING:
    from api.cli.client.api_client import Client

ID = Id(hint="See `bioscope jobs list`.")
JOB = argument("job", type=ID, help="Id of the job.")
NEWEST_JOB = argument("job", type=ID, required=False, help="Id of the job. [default: the newest one that you started]")
WATCHED = click.option("--watch", "watched", is_flag=True, help="Wait until the new job has ended.")


@group()
def jobs() -> None:
    """Run models over uploaded images, follow jobs, cancel them, and classify failed images again.

    The commands work from any machine, with your sign-in (`bioscope login`). They show the jobs of all datasets that you may see.
    """


@jobs.command(example="bioscope jobs run --dataset micrographs --model bccd3")
@argument("images", type=Id(hint="See `bioscope results list --json`."), nargs=-1, help="Ids of images of one dataset, without --dataset.")
@click.option("--dataset", metavar="NAME|ID", help="Classify the images of this dataset.")
@click.option("--path", metavar="PATTERN", help="Only images whose path fits, such as 'A1/*': * is any characters, ? is one.")
@click.option("--uploaded-from", type=Moment(), metavar="TIME", help=f"Only images uploaded since this time, such as {MOMENT_EXAMPLES}.")
@click.option("--uploaded-before", type=Moment(), metavar="TIME", help="Only images uploaded before this time.")
@click.option("--device", metavar="HOSTNAME|ID", help="Only images from this device.")
@click.option("--label", metavar="LABEL", help="Only images whose newest result of the model has this label.")
@click.option(
    "--verdict", type=Choice([verdict.value for verdict in Verdict]), help="Only images whose newest result of the model has this verdict."
)
@click.option("--without-result", is_flag=True, help="Only images for which the model has no result.")
@job_options
@WATCHED
@json_option(StartedJob)
@API_URL
def run(
    images: Sequence[UUID],
    dataset: str | None,
    choices: Mapping[str, Any],
    url: str | None,
    *,
    watched: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Run a model over images that are uploaded already.

    They are those of a dataset, a part of it, or a list. Conditions can be combined. An image that this version has classified gets its
    earlier result again, unless you give --fresh. This needs the role analyst, and the grant analyst on the dataset.

    With --watch, the exit code is 1 if an image has no result.
    """
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    given = {name: value for name, value in conditions.items() if value is not None and value is not False}
    _check_selection(images, dataset, given)
    with open_client(url) as client:
        require_model(client, choices)
        started = jobs.start(client, images=images, dataset=dataset, conditions=given, choices=choices)
        _tell(client, started, "has started", watched=watched, as_json=as_json)


def _check_selection(images: Sequence[UUID], dataset: str | None, conditions: Mapping[str, object]) -> None:
    """End the process unless the images are those of a dataset or a list."""
    if bool(images) == (dataset is not None):
        fail("give either --dataset or the ids of images" + (", not both" if images else ""), WRONG_USE)
    if images and conditions:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in conditions)
        fail(f"{options} chooses images of a dataset: leave it out, or give --dataset instead of ids", WRONG_USE)


@jobs.command("list", example="bioscope jobs list --status completed")
@click.option("--status", type=Choice([status.value for status in JobStatus]), help="List jobs with this status only.")
@click.option("--dataset", metavar="NAME|ID", help="List jobs over this dataset only.")
@click.option("--mine", is_flag=True, help="List only jobs that you started.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="NUMBER", default=20, show_default=True, help="How many to list, the newest ones."
)
@json_option(list[Job])
@API_URL
def list_jobs(status: str | None, dataset: str | None, limit: int, url: str | None, *, mine: bool, as_json: bool) -> None:
    """List jobs with their progress, newest first."""
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = jobs.read_jobs(client, status=status, dataset=dataset, mine=mine, maximum=limit)
    if as_json:
        print_json(found)
    else:
        jobs.print_jobs(found)


@jobs.command(example="bioscope jobs show")
@NEWEST_JOB
@json_option(JobDetails)
@API_URL
def show(job: UUID | None, url: str | None, *, as_json: bool) -> None:
    """Show a job: progress, model, and why images have no result."""
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = jobs.read_details(client, jobs.id_of_job(client, job))
        if as_json:
            print_json(found)
        else:
            jobs.print_job(client, found)


@jobs.command(example="bioscope jobs watch")
@NEWEST_JOB
@json_option(Job)
@API_URL
def watch(job: UUID | None, url: str | None, *, as_json: bool) -> None:
    """Wait until a job has ended.

    A bar shows its progress, rate and remaining time. Ctrl-C ends the command; the job continues. If the server does not answer, for
    instance while it restarts, the command waits for it.

    The exit code is 1 if an image has no result.
    """
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        _watch(client, jobs.visible_job(client, jobs.id_of_job(client, job)), as_json=as_json)


@jobs.command(example=f"bioscope jobs cancel {EXAMPLE_ID}")
@JOB
@API_URL
def cancel(job: UUID, url: str | None) -> None:
    """Stop a job. Results that it has stay.

    This needs the role analyst, and the grant analyst on the dataset.
    """
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        cancelled = jobs.cancel(client, str(job))
    print_message(jobs.outcome(cancelled))


@jobs.command(example=f"bioscope jobs retry {EXAMPLE_ID}")
@JOB
@WATCHED
@json_option(RetriedJob)
@API_URL
def retry(job: UUID, url: str | None, *, watched: bool, as_json: bool) -> None:
    """Classify the failed images of a job again, in a new job.

    It has the same model version, planes and thresholds. This needs the role analyst, and the grant analyst on the dataset.

    With --watch, the exit code is 1 if an image has no result.
    """
    from api.cli.client import jobs
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        _tell(client, jobs.retry(client, str(job)), "classifies the failed images again", watched=watched, as_json=as_json)


def _tell(client: "Client", job: StartedJob, what: str, *, watched: bool, as_json: bool) -> None:
    """Print a new job, or wait until it has ended, which ends the process."""
    if as_json:
        print_json(job)
    if watched:
        _watch(client, str(job.id), as_json=False)
    print_message(f"The job {job.id} {what}.\nWatch it with: bioscope jobs watch {job.id}")


def _watch(client: "Client", job: str, *, as_json: bool) -> None:
    """Ends the process."""
    from api.cli.client import jobs

    ended = jobs.watch(client, job, err)
    if as_json:
        print_json(ended)
    print_message(jobs.outcome(ended))
    print_message(f"Results: bioscope results list --job {ended.id}")
    if ended.failed:
        print_message(f"Failures: bioscope jobs show {ended.id}")
    sys.exit(0 if jobs.succeeded(ended) else FAILED)
