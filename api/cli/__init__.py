"""The command line, and the composition root of every process but the projector.

Each command imports what it needs when it runs, so that no process loads the drivers of another one.
"""

import io
import os
import sys
from pathlib import Path

import click

from api.cli import api_keys, jobs, processes, remote, results, sessions, stack, statistics
from api.cli.admin import (
    access,
    audit,
    backup,
    config,
    datasets,
    documents,
    external_models,
    images,
    keys,
    mail,
    model_packages,
    models,
    policies,
    status,
    teams,
    tokens,
    users,
)
from api.cli.commands import CommandLine
from api.cli.common import DATA
from api.cli.completion import completion
from infrastructure.postgres.environment import remove_libpq_variables


@click.group(cls=CommandLine, context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110})
@click.version_option(package_name="bioscope")
@DATA
def main(data: Path | None) -> None:  # noqa: ARG001 - `DATA` of each command reads it
    """Classify microscopy images, and prove years later who found what with which model.

    \b
    First steps:
      bioscope demo                                try it on real micrographs
      bioscope up                                  start the whole system
      bioscope users create-admin you@example.org  create an administrator
      bioscope login                               sign in
      bioscope classify examples/micrographs       classify a folder of images
      bioscope models add FOLDER                   add a model of your own

    `bioscope COMMAND --help` explains a command and gives an example. Settings are BIOSCOPE_* variables: `bioscope config show` prints
    them, .env.example explains each.

    Exit codes: 0 done, 1 failed, 2 wrong command line or setting, 3 another process uses the data folder, 4 the log was changed after it
    was written, 5 a server that is needed does not answer.
    """
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))  # stdout is for data
    remove_libpq_variables(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no command fails because the terminal lacks a character


for of_models in (model_packages.add, model_packages.test, model_packages.checks, external_models.add_external):
    models.models.add_command(of_models)
for of_audit in (access.trail_log, access.who):
    audit.audit.add_command(of_audit)
main.add_section(
    "Everyday commands",
    stack.demo,
    stack.up,
    remote.login,
    remote.upload,
    sessions.password,
    sessions.sessions,
    remote.classify,
    jobs.jobs,
    results.results,
    statistics.stats,
    api_keys.api_keys,
    audit.audit,
)
main.add_section(
    "Administration",
    users.users,
    tokens.tokens,
    datasets.datasets,
    teams.teams,
    models.models,
    policies.policies,
    images.images,
    status.status,
    stack.doctor,
    config.config,
    keys.keys,
    mail.mail,
    stack.migrate,
    backup.backup,
    backup.restore,
    audit.rebuild,
    audit.dead_letters,
)
main.add_section(
    "Processes", processes.api, processes.relay, processes.projector, processes.inference, processes.inference_bridge, processes.health
)
main.add_section("Interfaces", documents.openapi, documents.asyncapi, completion)
