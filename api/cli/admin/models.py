"""Commands for models, through the API: what is registered, which version is in production, and who decided that."""

from http import HTTPStatus
from pathlib import Path

import click

from api.cli.commands import argument, group, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail, print_json, print_message
from api.cli.prompts import confirm
from api.cli.shapes import ModelChange, RegisteredModel
from domain.errors import Invalid
from domain.model import ALIAS, CANDIDATE, MAX_REASON, PRODUCTION
from domain.values import multiline_text


def _reason(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return multiline_text(value, name="reason", maximum=MAX_REASON)
    except Invalid as error:
        raise click.BadParameter(str(error)) from None


def _alias(_: click.Context, __: click.Parameter, value: str) -> str:
    if not ALIAS.fullmatch(value):
        raise click.BadParameter("must begin with a letter and have at most 50 of a-z, 0-9, - and _")
    return value


NAME = argument("name", help="Name of the model.")
REASON = click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    callback=_reason,
    help=f"Why, for those who read the history: 1 to {MAX_REASON} characters.",
)


@group()
def models() -> None:
    """Show, add and test models, and choose the version that new jobs use.

    The commands work from any machine. They use your sign-in (`bioscope login`), and the log records you.
    """


@models.command("list", example="bioscope models list")
@click.option("--retired", is_flag=True, help="List retired models too.")
@json_option(list[RegisteredModel])
@API_URL
def list_models(url: str | None, *, retired: bool, as_json: bool) -> None:
    """List the models with their aliases and labels."""
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = registry.read_models(client, retired=retired)
    if as_json:
        print_json(found)
    else:
        registry.print_models(found)


@models.command(example="bioscope models show pbc8")
@argument("reference", metavar="NAME[@VERSION]", help="Name of the model, and the number or alias of a version whose labels to show.")
@click.option("--as-of", "as_of", metavar="MOMENT", help="A time (2026-03-01T12:00:00Z) or a position (4711). [default: now]")
@json_option(RegisteredModel)
@API_URL
def show(reference: str, as_of: str | None, url: str | None, *, as_json: bool) -> None:
    """Show a model: versions, aliases, promoters, labels in words, checks.

    With --as-of, as it was then: which version was in production, and who could promote. Checks are then left out.
    """
    from api.cli.client import registry
    from api.cli.client.api_client import RequestRefused
    from api.cli.client.sign_in import open_client

    name, wanted = registry.split_reference(reference)
    with open_client(url) as client:
        try:
            found = registry.read_model(client, name, as_of=as_of)
        except RequestRefused as refused:
            if refused.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            fail(str(refused), WRONG_USE)
    version = registry.find_version(found, wanted) if wanted is not None else None
    if as_json:
        print_json(found)
    else:
        registry.print_model(found, version)


@models.command(example="bioscope models promote pbc8 1 --reason 'Validated on our slides'")
@NAME
@argument("version", metavar="NUMBER", help="Number of the version in this installation.")
@REASON
@click.option(
    "--alias", metavar="NAME", default=PRODUCTION, show_default=True, callback=_alias, help="Alias that is to point to the version."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation if its labels or its kind differ from those in production.")
@API_URL
def promote(name: str, version: str, reason: str, alias: str, url: str | None, *, yes: bool) -> None:
    """Put a version of a model into production.

    New jobs use it from now on, and it is the candidate no more. Jobs in progress and existing results keep their version. Promote the
    older version to go back. This is for administrators, and for promoters of the model.

    If its labels or its kind differ from those in production, the command asks for confirmation.
    """
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        model = registry.read_model(client, name)
        chosen = registry.find_number(model, version)
        if alias == PRODUCTION:
            _confirm_differences(registry.differences(model, chosen), yes=yes)
        number = chosen.number
        is_new = registry.move_alias(client, model.name, alias, number, reason)
    was_candidate = alias == PRODUCTION and model.aliases.get(CANDIDATE) == number
    print_message(_promoted(model.name, number, alias, is_new=is_new, was_candidate=was_candidate))


def _confirm_differences(found: tuple[str, ...], *, yes: bool) -> None:
    for difference in found:
        print_message(difference, prefix="note: ")
    if found and not yes:
        confirm("Put it into production?", otherwise="add --yes if the users of the model expect this")


def _promoted(model: str, number: int, alias: str, *, is_new: bool, was_candidate: bool) -> str:
    if alias == PRODUCTION:
        sentence = f"Version {number} of the model {model} is {'now in production' if is_new else 'in production already'}."
    else:
        sentence = f"`{alias}` is {'now ' if is_new else ''}version {number} of the model {model}{'' if is_new else ' already'}."
    if not is_new:
        return f"{sentence} The reason was not recorded."
    return f"{sentence} It is no longer the candidate." if was_candidate else sentence


@models.command(example="bioscope models retire bccd3 --reason 'We have no use for it'")
@NAME
@REASON
@API_URL
def retire(name: str, reason: str, url: str | None) -> None:
    """Accept no new jobs for a model, for ever.

    Its results stay. This is for administrators, and for promoters of the model. It cannot be undone.
    """
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        model = registry.read_model(client, name)
        registry.retire(client, model.name, reason)
    print_message(f"The model {model.name} is retired.")


@models.command(example="bioscope models export pbc8 pbc8.zip")
@argument("reference", metavar="NAME[@VERSION]", help="Name of the model, and the number or alias of the version. [default: production]")
@argument("file", type=click.Path(path_type=Path, dir_okay=False), help="Zip file to write. It must not exist.")
@API_URL
def export(reference: str, file: Path, url: str | None) -> None:
    """Save the package of a version as a zip file.

    It holds all files of the package, and an rdf.yaml for tools of bioimage.io. Added again, it is the same version. A version of an
    earlier release has no package: its weights and its manifest are saved, without test tensors.
    """
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client
    from infrastructure.atomic_files import write_atomically

    if file.exists():
        fail(f"{file} exists already: choose another name", WRONG_USE)
    if not file.parent.is_dir():
        fail(f"there is no folder {file.parent}: make it, or choose another path", WRONG_USE)
    name, wanted = registry.split_reference(reference)
    with open_client(url) as client:
        model = registry.read_model(client, name)
        version = registry.find_version(model, PRODUCTION if wanted is None else wanted)
        write_atomically(file, registry.download_package(client, model.name, version), durable=False)
    print_message(f"Version {version.number} of the model {model.name} is in {file} ({file.stat().st_size:,} bytes).")


@models.command(example="bioscope models history pbc8")
@NAME
@json_option(list[ModelChange])
@API_URL
def history(name: str, url: str | None, *, as_json: bool) -> None:
    """Show what happened to a model, oldest first: who did what, and why."""
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        changes = registry.read_history(client, registry.read_model(client, name).name)
    if as_json:
        print_json(changes)
    else:
        registry.print_history(changes)
