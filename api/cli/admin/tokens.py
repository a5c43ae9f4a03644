"""Commands for the keys of programs, on the server's machine."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from api.cli.admin.read_models import OPERATOR, all_rows, open_reads
from api.cli.commands import Id, argument, group, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.exit_codes import WRONG_USE
from api.cli.key_options import DATASETS, DAYS, DAYS_OF_NEW_SECRET, OVERLAP, SCOPES
from api.cli.operator import operator, operator_command
from api.cli.output import Column, fail, print_json, print_message, print_table
from api.cli.shapes import ListedToken, ServiceToken
from domain.access import Scope
from domain.errors import Taken
from domain.values import printable
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from infrastructure.eventstore.event_store import PostgresEventStore

KEY = argument("key", type=Id(hint="See `bioscope tokens list`."), help="Id of the key.")


@group()
def tokens() -> None:
    """Create, list, rotate and revoke the keys of programs.

    The commands run on the server's machine. The log records them under the administrator who is signed in there (`bioscope login`),
    otherwise as "root on HOST". Your own keys, with which programs act as you: `bioscope api-keys`.
    """


@tokens.command("create", example="bioscope tokens create archive --scope events:read --days 30")
@argument("name", help="Name of the program: letters, digits, dots, underscores or hyphens.")
@SCOPES
@DATASETS
@DAYS
@DATA
@json_option(ServiceToken)
def create_token(name: str, scopes: tuple[str, ...], datasets: tuple[str, ...], days: int, data: Path | None, *, as_json: bool) -> None:
    """Print a new key for a program.

    \b
      images:read    read images, their previews and downloads
      images:write   upload images, and change what it uploaded
      datasets:read  list datasets
      jobs:run       run models as jobs, follow and cancel them
      results:read   read and export results and statistics
      events:read    read the event feed and live events
      metrics:read   read /metrics
      models:run     run models in production over its own images

    The program gets a service account of this name, unless there is one. The key is shown once, only its hash is stored, and it expires.
    """
    from application import api_keys, service_accounts
    from application.key_text import KeySecret

    settings = running_installation(data)
    with open_event_log(settings) as log:
        limits = _dataset_ids(settings, datasets)
        if (service := service_accounts.find(name, log)) is None:
            with suppress(Taken):  # another command has just created it
                service_accounts.create(name=name, command=operator_command(settings, log), log=log)
            service = service_accounts.find(name, log)
        if service is None:
            fail(f"the service account {printable(name)} was deleted just now: repeat the command")
        asyncio.run(_require_room(settings, service.id))
        secret = KeySecret()
        issued = api_keys.issue_for_service(
            service.id,
            name=name,
            scopes=[Scope(scope) for scope in scopes],
            datasets=limits,
            lifetime=timedelta(days=days),
            secret_hash=secret.hash,
            command=operator_command(settings, log),
            log=log,
        )
        _print_key(log, settings, issued.id, secret.text(issued.id), as_json=as_json)


@tokens.command("list", example="bioscope tokens list")
@click.option("--all", "with_ended", is_flag=True, help="List keys that no longer work, too: revoked, expired, or with a deleted owner.")
@DATA
@json_option(list[ListedToken])
def list_tokens(data: Path | None, *, with_ended: bool, as_json: bool) -> None:
    """List the keys of programs and of users, with their last use.

    Signed tokens of earlier releases ("legacy") are listed once they were used.
    """
    settings = running_installation(data)
    with open_event_log(settings) as log:
        found = asyncio.run(_keys(settings, log))
    now = datetime.now(UTC)
    shown = [one for one in found if with_ended or (not one.revoked and one.expires_at > now)]
    if as_json:
        print_json(shown)
        return
    rows = [(str(one.id), one.owner, one.name, " ".join(one.scopes), f"{one.expires_at:%Y-%m-%d}", _last_use(one)) for one in shown]
    print_table([Column(title) for title in ("key", "owner", "name", "scopes", "expires", "last use")], rows)


@tokens.command("rotate", example="bioscope tokens rotate 9d8f2f36-6a0b-4d55-8b6e-2e9a4b7c1d04")
@KEY
@DAYS_OF_NEW_SECRET
@OVERLAP
@DATA
@json_option(ServiceToken)
def rotate_token(key: UUID, days: int | None, overlap_hours: int, data: Path | None, *, as_json: bool) -> None:
    """Print a new secret for a key of a program.

    It has the same id, scopes and datasets.
    """
    from application import api_keys
    from application.key_text import KeySecret

    settings, secret = running_installation(data), KeySecret()
    with open_event_log(settings) as log:
        api_keys.rotate(
            key,
            lifetime=None if days is None else timedelta(days=days),
            overlap=timedelta(hours=overlap_hours),
            secret_hash=secret.hash,
            command=operator_command(settings, log),
            log=log,
        )
        _print_key(log, settings, key, secret.text(key), as_json=as_json)


@tokens.command("revoke", example="bioscope tokens revoke --legacy")
@argument("key", type=Id(hint="See `bioscope tokens list`."), required=False, help="Id of the key.")
@click.option("--legacy", is_flag=True, help="Revoke all signed tokens of earlier releases.")
@DATA
def revoke_token(key: UUID | None, data: Path | None, *, legacy: bool) -> None:
    """Revoke a key, or all tokens of earlier releases.

    It is refused within ten seconds.
    """
    from application import api_keys, service_accounts

    if (key is None) is not legacy:
        fail("give either the id of a key or --legacy", WRONG_USE)
    settings = running_installation(data)
    with open_event_log(settings) as log:
        command = operator_command(settings, log)
        if key is None:
            service_accounts.revoke_legacy(command=command, log=log)
        else:
            api_keys.revoke(key, command=command, log=log)
    print_message("All tokens of earlier releases are revoked." if key is None else f"{key} is revoked.")


def _print_key(log: "PostgresEventStore", settings: Settings, key: UUID, text: str, *, as_json: bool) -> None:
    from application import api_keys

    found = api_keys.load_key(log, key, operator(settings, log))
    if as_json:
        scopes = tuple(sorted(found.scopes))
        print_json(ServiceToken(id=key, token=text, name=found.name, scopes=scopes, expires_at=found.expires_at))
    else:
        click.echo(text)


def _last_use(token: ListedToken) -> str:
    return "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M} from {token.last_used_from}"


async def _keys(settings: Settings, log: "PostgresEventStore") -> list[ListedToken]:
    from application import accounts, api_keys, service_accounts
    from infrastructure.postgres.key_uses import PostgresKeyUses
    from projections import api_keys as read_model

    rows = await all_rows(settings, read_model.listed, everyone=True)
    states, uses = api_keys.states_of([row.id for row in rows], log), PostgresKeyUses(log.recorder.rows)
    services = service_accounts.states_of({row.owner_id for row in rows if row.owner_kind.value == "service"}, log)
    people = accounts.states_of({row.owner_id for row in rows if row.owner_kind.value == "user"}, log)
    names = {service.id: service.name for service in services.values()} | {person.id: person.username for person in people.values()}
    used = uses.of([row.id for row in rows])
    listed = [
        ListedToken(
            id=key.id,
            owner=names.get(key.owner_id) or str(key.owner_id),
            name=key.name,
            scopes=tuple(sorted(key.scopes)),
            dataset_ids=None if key.dataset_ids is None else tuple(sorted(key.dataset_ids)),
            expires_at=key.expires_at,
            revoked=key.revoked,
            legacy=False,
            first_used_at=used[key.id].first_at if key.id in used else None,
            last_used_at=used[key.id].last_at if key.id in used else None,
            last_used_from=used[key.id].network if key.id in used else None,
        )
        for row in rows
        if (key := states.get(row.id)) is not None
    ]
    revoked = service_accounts.legacy_tokens(log)
    return listed + [
        ListedToken(
            id=use.key,
            owner=use.legacy_name or "",
            name="legacy",
            scopes=(),
            dataset_ids=None,
            expires_at=use.legacy_expiry or use.last_at,
            revoked=revoked is not None and use.first_at <= revoked.revoked_at,
            legacy=True,
            first_used_at=use.first_at,
            last_used_at=use.last_at,
            last_used_from=use.network,
        )
        for use in uses.legacy()
    ]


async def _require_room(settings: Settings, service: UUID) -> None:
    """Raises Conflict if the service account has too many keys."""
    from projections import api_keys

    async with open_reads(settings) as reads:
        await api_keys.require_room(reads, OPERATOR, owner=service, now=datetime.now(UTC))


def _dataset_ids(settings: Settings, wanted: tuple[str, ...]) -> list[UUID] | None:
    """The ids of the datasets with these names or ids; None for no name. Ends the process for a name that does not say which one."""
    from projections import datasets

    if not wanted:
        return None
    rows = asyncio.run(all_rows(settings, datasets.listed))
    return [_dataset_id(rows, one) for one in wanted]


def _dataset_id(rows: list[Any], wanted: str) -> UUID:
    found: list[UUID] = [row.id for row in rows if wanted in {row.name, str(row.id)}]
    if len(found) != 1:
        fail(f"{len(found) or 'no'} datasets have the name or id {printable(wanted)!r}: give the id of one dataset")
    return found[0]
