"""The command line, and the composition root of every process but the projector.

Each command imports what it needs when it runs, so that no process carries another's drivers.
"""

import io
import os
import sys

import click

from api.cli import processes, remote, stack
from api.cli.admin import audit, backup, config, documents, images, keys, models, users
from api.cli.common import CommandGroup
from infrastructure.postgres.environment import remove_libpq_variables


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="bioscope")
def main() -> None:
    """Classify microscopy images, and prove years later what was seen, by which model, by whom.

    \b
    Begin with:
      bioscope demo                      see it at work, on real micrographs
      bioscope up                        start everything on this machine
      bioscope users create-admin EMAIL  make the first administrator
      bioscope login                     sign in
      bioscope classify FOLDER           upload a folder, run a model, show the results

    Settings are BIOSCOPE_* variables: `bioscope config show` prints them, .env.example explains each. Exit codes: 0 done, 1 failed,
    2 wrong use or setting, 3 somebody else has the data folder, 4 the record was tampered with, 5 something needed is away.
    """
    remove_libpq_variables(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character ends no command


for command in (
    stack.up,
    stack.demo,
    stack.migrate,
    stack.doctor,
    config.config,
    keys.keys,
    processes.api,
    processes.relay,
    processes.projector,
    processes.inference,
    processes.health,
    audit.audit,
    audit.rebuild,
    audit.dead_letters,
    images.images,
    models.models,
    backup.backup,
    backup.restore,
    users.users,
    users.tokens,
    remote.login,
    remote.classify,
    documents.asyncapi,
    documents.openapi,
):
    main.add_command(command)
