"""The progress of a job on a terminal. An outage of the server is waited for, and a key press ends the command, not the job."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.client.api_client import MAX_OUTAGE_SECONDS, Client, RequestRefused
from api.cli.moments import duration
from api.cli.output import print_message


def how_to_watch(job: str) -> str:
    return f"The job {job} continues on the server.\nWatch it with: bioscope jobs watch {job}"


@contextmanager
def after_interruption(message: str, console: Console) -> Iterator[None]:
    """Say what remains on the server if the user presses Ctrl-C, or the server does not answer any more."""
    try:
        yield
    except (KeyboardInterrupt, httpx.TransportError, RequestRefused):
        print_message(message, console=console)
        raise


def progress_bars(console: Console) -> Progress:
    """A bar for each task, whose field `speed` is shown behind it."""
    texts = TextColumn("{task.description:<9}"), TextColumn("{task.fields[speed]}")
    return Progress(texts[0], BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), texts[1], console=console)


def follow(client: Client, job: str, total: int, progress: Progress) -> dict[str, Any]:
    """The last state of the job. `total` is the number of images as long as the server has not listed them."""

    def waits() -> None:
        print_message(f"The server does not answer. Waiting up to {duration(MAX_OUTAGE_SECONDS)} for it.", console=progress.console)

    bar = progress.add_task("classify", total=total, speed="")
    state: dict[str, Any] = {}
    for state in client.watch(job, on_outage=waits):
        done = state["succeeded"] + state["failed"]
        progress.update(bar, completed=done, total=state["images"] or total, speed=speed(state))
    return state


def speed(state: Mapping[str, Any]) -> str:
    """Images in a second, and how long the rest takes; empty as long as the server knows neither."""
    rate, remaining = state.get("rate"), state.get("remaining_seconds")
    parts = [f"{rate:.1f}/s"] if rate else []
    return ", ".join([*parts, *([f"{duration(remaining)} left"] if remaining else [])])
