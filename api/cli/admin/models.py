"""Commands for registered models, on the server's machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from api.cli.commands import argument, group
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.operator import operator_command
from api.cli.output import fail, print_message
from domain import model
from domain.errors import NotFound
from domain.model import PRODUCTION
from domain.values import model_id

if TYPE_CHECKING:
    from infrastructure.eventstore.event_store import RecorderEventStore


@group()
def models() -> None:
    """Choose the model version that new jobs use."""


@models.command(example="bioscope models promote pbc8 1")
@argument("name", help="Name of the model.")
@argument("version", type=click.IntRange(min=1), help="Number of the version in this installation.")
@DATA
def promote(name: str, version: int, data: Path | None) -> None:
    """Put a version of a model into production.

    New jobs use it from now on. Jobs in progress and existing results keep their version. Promote the older version to go back.
    """
    from application.models import move_alias

    settings = running_installation(data)
    with open_event_log(settings) as log:
        try:
            done = move_alias(name=name, alias=PRODUCTION, number=version, command=operator_command(settings, log), log=log)
        except NotFound as error:
            fail(f"{error.detail}; {_versions(log, name)}")
    already = "" if done.position else " already"
    print_message(f"Version {version} of the model {name} is in production{already}.")


def _versions(log: "RecorderEventStore", name: str) -> str:
    """What there is instead."""
    from infrastructure.inference.models.bundled import bundled_manifests
    from infrastructure.inference.models.bundled import models as bundled_models

    state = log.load(model_id(name), model.evolve)
    if state is None:
        return f"this release comes with {', '.join(path.parent.name for path in bundled_manifests(bundled_models()))}"
    return f"it has {', '.join(str(version.number) for version in state.versions)}"
