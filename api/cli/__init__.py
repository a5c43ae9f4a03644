"""The command line, and the composition root of every process but the projector.

Each command imports what it needs when it runs, so that no process carries another's drivers.
"""

import io
import os
import sys

import click

from api.cli import copies, documents, images, people, processes, record, remote, system
from infrastructure.child_environment import forget_libpq_variables


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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

    Settings are BIOSCOPE_* variables; .env.example explains each. Exit codes: 0 done, 1 failed, 2 wrong use or setting,
    3 somebody else has the data folder, 4 the record was tampered with, 5 something needed is away.
    """
    forget_libpq_variables(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character ends no command


for command in (
    system.up,
    system.demo,
    system.migrate,
    system.doctor,
    processes.api,
    processes.relay,
    processes.projector,
    processes.inference,
    record.audit,
    record.rebuild,
    record.dead_letters,
    images.images,
    copies.backup,
    copies.restore,
    people.users,
    people.tokens,
    remote.login,
    remote.classify,
    documents.asyncapi,
    documents.openapi,
):
    main.add_command(command)
