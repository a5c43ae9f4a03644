"""Options of commands that issue and rotate keys."""

from typing import Final

import click

from api.cli.commands import Choice
from domain.access import Scope
from domain.api_key import DEFAULT_LIFETIME, DEFAULT_OVERLAP, MAX_LIFETIME, MAX_OVERLAP

SCOPES: Final = click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    type=Choice([scope.value for scope in Scope]),
    help="What it may do; repeatable.",
)
DATASETS: Final = click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME|ID", help="Only images and results of this dataset; repeatable."
)
DAYS: Final = click.option(
    "--days",
    type=click.IntRange(1, MAX_LIFETIME.days),
    metavar="NUMBER",
    default=DEFAULT_LIFETIME.days,
    show_default=True,
    help="Lifetime in days.",
)
DAYS_OF_NEW_SECRET: Final = click.option(
    "--days",
    type=click.IntRange(1, MAX_LIFETIME.days),
    metavar="NUMBER",
    help="Lifetime of the new secret in days.  [default: that of the present one]",
)
OVERLAP: Final = click.option(
    "--overlap",
    "overlap_hours",
    type=click.IntRange(0, MAX_OVERLAP.days * 24),
    metavar="HOURS",
    default=DEFAULT_OVERLAP.days * 24,
    show_default=True,
    help="For how many hours the present key works beside the new one.",
)
