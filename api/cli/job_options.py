"""The options of commands that start a job: its model, its planes, and how it runs."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from api.cli.commands import Choice
from api.cli.exit_codes import WRONG_USE
from api.cli.moments import Deadline
from api.cli.numbers import Fraction
from api.cli.output import fail
from domain.classification import Priority

if TYPE_CHECKING:
    from api.cli.client.api_client import Client

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: Final = (
    click.option(
        "--model",
        metavar="NAME[@VERSION]",
        help="Name of the model, with an alias or number of a version other than the one in production, such as cells@candidate or cells@2."
        " [default: the model that the server is configured with]",
    ),
    click.option(
        "--plane",
        "planes",
        metavar="AXIS=PLANES",
        multiple=True,
        help="Which planes of each image the model gets: z=max, z=mean, z=4, c=0,2 or t=0, counted from 0."
        " Can be repeated. [default: the model chooses]",
    ),
    click.option("--threshold", type=Fraction(), metavar="NUMBER", help="A lower confidence needs review. [default: that of the model]"),
    click.option("--priority", type=Choice([priority.value for priority in Priority]), help="Order among your own jobs. [default: normal]"),
    click.option(
        "--deadline",
        type=Deadline(),
        metavar="TIME",
        help=f"When the job ends at the latest, such as {Deadline.examples}. Images without a result are failures then.",
    ),
    click.option(
        "--top-k", type=click.IntRange(min=1), metavar="NUMBER", help="How many scores results show, the highest ones. [default: all]"
    ),
    click.option("--fresh", is_flag=True, help="Run the model also for images that it has a result for."),
)
NAMES: Final = ("model", "planes", "threshold", "priority", "deadline", "top_k", "fresh")


def job_options(command: F) -> F:
    """The options, which the command gets as `choices`: fields of a request that starts a job."""

    @wraps(command)
    def with_choices(*arguments: Any, **options: Any) -> Any:
        from api.cli.client.job_choices import request_fields

        try:
            choices = request_fields(**{name: options.pop(name) for name in NAMES})
        except ValueError as wrong:
            fail(str(wrong), WRONG_USE)
        return command(*arguments, choices=choices, **options)

    for option in reversed(OPTIONS):
        with_choices = option(with_choices)
    return cast(F, with_choices)


def require_model(client: "Client", choices: Mapping[str, Any]) -> None:
    """End the process if the chosen model cannot be run."""
    from api.cli.client.job_choices import ModelChoice, refusal_of

    if "model_name" not in choices:
        return
    choice = ModelChoice(choices["model_name"], choices.get("model_version", ""))
    if refusal := refusal_of(choice, client.get("/api/models", retired=True)):
        fail(refusal, WRONG_USE)
