"""Questions at the terminal; without one, a sentence says how to answer beforehand."""

import sys
import warnings
from getpass import GetPassWarning
from typing import Any

import click

from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail


def ask(question: str, *, otherwise: str, **options: Any) -> str:
    """The answer of the user, or a line of a pipe. `otherwise` says what to do without either."""
    try:
        answer: str = click.prompt(question, err=True, **options)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        if not options.get("hide_input"):
            click.echo(err=True)  # click ends the line after a hidden answer only
        fail(f"there is no terminal to ask for an answer: {otherwise}", WRONG_USE)
    return answer


def confirm(question: str, *, otherwise: str) -> None:
    """End the process unless the user agrees. `otherwise` says what to do without a terminal."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        fail(f"there is no terminal to ask for an answer: {otherwise}", WRONG_USE)
    if not agreed:
        raise click.Abort


def ask_password(question: str, *, otherwise: str, **options: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GetPassWarning)  # a pipe echoes nothing
        return ask(question, otherwise=otherwise, hide_input=True, **options)
