"""Commands for jobs, through the API: follow them, cancel them, classify failed images again."""

import sys
from uuid import UUID

import click

from api.cli.commands import EXAMPLE_ID, Choice, Id, argument, group, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import FAILED
from api.cli.output import err, print_json, print_message
from api.cli.shapes import Job, JobDetails, RetriedJob
from domain.classification import JobStatus

ID = Id(hint="See `bioscope jobs list`.")
JOB = argument("job", type=ID, help="Id of the job.")
NEWEST_JOB = argument("job", type=ID, required=False, help="Id of the job. [default: the newest one that you started]")


@group()
def jobs() -> None:
    """Follow jobs, cancel them, and classify failed images again.

    The commands work from any machine, with your sign-in (`bioscope login`). They show the jobs of all datasets that you may see.
    """


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
@click.option("--watch", "watched", is_flag=True, help="Wait until the new job has ended.")
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
        retried = jobs.retry(client, str(job))
        if as_json:
            print_json(retried)
        if watched:
            _watch(client, str(retried.id), as_json=False)
    print_message(f"The job {retried.id} classifies the failed images again.\nWatch it with: bioscope jobs watch {retried.id}")


def _watch(client: object, job: str, *, as_json: bool) -> None:
    """Ends the process."""
    from api.cli.client import jobs

    ended = jobs.watch(client, job, err)  # type: ignore[arg-type]
    if as_json:
        print_json(ended)
    print_message(jobs.outcome(ended))
    print_message(f"Results: bioscope results list --job {ended.id}")
    if ended.failed:
        print_message(f"Failures: bioscope jobs show {ended.id}")
    sys.exit(0 if jobs.succeeded(ended) else FAILED)
