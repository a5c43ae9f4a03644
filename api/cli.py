"""The command line, and the composition root of every process but the projector.

Each command imports what it needs when it runs, so that no process carries another's drivers.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID, uuid4

import click
import msgspec
from rich.console import Console
from rich.table import Table

from infrastructure.settings import Settings, WrongSetting, load

FAILED, WRONG_USE, TAKEN, TAMPERED, AWAY = 1, 2, 3, 4, 5

out = Console()
err = Console(stderr=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    err.print(f"[red]bioscope:[/red] {message}", highlight=False, soft_wrap=True)
    sys.exit(code)


def settings(**changes: Any) -> Settings:
    """From the environment, with the options given on the command line. A wrong setting ends the process, naming the variable."""
    try:
        given = msgspec.structs.replace(load(os.environ), **{name: value for name, value in changes.items() if value is not None})
    except WrongSetting as wrong:
        fail(str(wrong), WRONG_USE)
    return msgspec.structs.replace(given, data=given.data.absolute())


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


DATA = click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder for everything that is kept [.bioscope].")
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port of the API [8000].")
URL = click.option("--url", help="Address of the API [the one you signed in to, or http://127.0.0.1:8000].")


# ---- the whole system --------------------------------------------------------------------------------------------------------------
@main.command()
@DATA
@PORT
@click.option("--verbose", is_flag=True, help="Show the processes' logs too.")
def up(data: Path | None, port: int | None, *, verbose: bool) -> None:
    """Start everything on this machine and keep it running; Ctrl-C stops it.

    Parts whose URL is set (BIOSCOPE_POSTGRES_URL, _KAFKA_URL, _REDIS_URL, _BLOBS_URL) are used as they are; the others are
    embedded. Prints `ready: URL` once it serves.
    """
    from infrastructure.supervisor import up as supervise

    given = settings(data=data, port=port)
    with explained():
        sys.exit(supervise(given, prepare=prepare, on_ready=lambda running: click.echo(f"ready: {running.base_url}"), verbose=verbose))


@main.command()
@DATA
@PORT
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder with a manifest.csv (file,label).")
@click.option("--stay/--no-stay", default=None, help="Stay up when done [only at a terminal].")
def demo(data: Path | None, port: int | None, images: Path | None, *, stay: bool | None) -> None:
    """Start everything, classify real micrographs as a dataset, verify the record, say where to look."""
    from api.demo import show
    from infrastructure.shipped import micrographs
    from infrastructure.supervisor import Stack

    stack = Stack(settings(data=data, port=port), prepare=prepare)
    with explained(), stack as running:
        email, password = f"demo-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(18)
        with the_log(running) as log:
            _create_admin(running, log, email, password)
            good = show(
                url=running.base_url,
                email=email,
                password=password,
                folder=images or micrographs(),
                verify=lambda: _verified(running, log),
                console=out,
            )
        if stay if stay is not None else sys.stdout.isatty():
            out.print("[dim]Still running; Ctrl-C stops it.[/dim]")
            stack.wait()
    sys.exit(0 if good else FAILED)


def prepare(given: Settings) -> None:
    """Bring the database to this version, and register the models that come with it."""
    from infrastructure.container import blobs
    from infrastructure.postgres.schema import migrate as apply
    from infrastructure.shipped import register_shipped

    apply(given.postgres_owner_url or given.postgres_url)
    with the_log(given) as log:
        register_shipped(blobs(given), log)


@main.command()
def migrate() -> None:
    """Bring the database to this version and register the shipped models. Harmless to repeat."""
    from infrastructure.postgres.schema import migrations

    given = settings()
    _needs(given, "postgres_url")
    with explained():
        prepare(given)
    out.print(f"The database is at migration {max(migrations())}.")


@main.command()
def doctor() -> None:
    """Look at the settings and at what they name; say what is wrong and what to do. Fails when something must be mended."""
    from infrastructure.doctor import examine

    shown = Table("", "what", "finding", show_header=False, box=None)
    findings = examine(settings())
    for finding in findings:
        mark = {"good": "[green]ok[/green]", "weak": "[yellow]weak[/yellow]", "wrong": "[red]wrong[/red]"}[finding.level]
        shown.add_row(mark, finding.what, finding.said)
    out.print(shown)
    sys.exit(FAILED if any(finding.level == "wrong" for finding in findings) else 0)


# ---- the processes -----------------------------------------------------------------------------------------------------------------
@main.command()
def api() -> None:
    """Serve the API (a process of its own in production)."""
    from infrastructure.serving import serve

    given = _process("api", "postgres_url", "redis_url")
    serve("api.cli:asgi", given)


def asgi() -> Any:
    """The application, for the HTTP server's worker."""
    from infrastructure.embedded.child import die_with_parent

    die_with_parent()
    from api.app import create_app
    from infrastructure.container import services
    from infrastructure.telemetry import configure_logging

    given = settings()
    configure_logging(given, "api")
    return create_app(services(given))


@main.command()
def relay() -> None:
    """Publish the log to Kafka, in order, once; sign its head (a process of its own; one leads, others wait)."""
    from infrastructure.relay import run_relay

    given = _process("relay", "postgres_url", "kafka_url")
    with explained():
        _serve_figures(given)
        run_relay(given)


@main.command()
def projector() -> None:
    """Build the read models from the log, and schedule jobs (a process of its own; a second one is a hot standby)."""
    from projections.worker import run_projector

    given = _process("projector", "postgres_url", "kafka_url")
    with explained():
        _serve_figures(given)
        run_projector(given)


@main.command()
def inference() -> None:
    """Decode images and run models (a process of its own; as many as you like)."""
    from infrastructure.inference import run_inference

    given = _process("inference", "postgres_url", "kafka_url")
    with explained():
        _serve_figures(given)
        run_inference(given)


# ---- the record --------------------------------------------------------------------------------------------------------------------
@main.group()
def audit() -> None:
    """Prove that the record is intact; read what happened and how things stood."""


@audit.command()
@DATA
def verify(data: Path | None) -> None:
    """Walk the whole log; name the first position that was edited, deleted, reordered, inserted or cut off. Exit code 4 then."""
    given = running(data)
    with explained(), the_log(given) as log:
        verified = _verified(given, log)
    if verified.finding:
        fail(f"tampered at position {verified.finding.position}: {verified.finding.what}", TAMPERED)
    out.print(f"[green]intact[/green]: {verified.events} events, {verified.heads} signed heads, hash {verified.hash[:16]}…")


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@DATA
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def trail(about: UUID, data: Path | None, *, as_json: bool) -> None:
    """Everything that happened to a user, dataset, image, model or job, oldest first."""
    from application.audit import trail as events_about
    from infrastructure.container import positions_about

    given = running(data)
    with explained(), the_log(given) as log:
        entries = events_about(about, others=positions_about(given, about), log=log)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2))
        return
    shown = Table("position", "when (UTC)", "what", "who", "details", box=None)
    for entry in entries:
        said = {name: value for name, value in msgspec.to_builtins(entry.data).items() if name not in SHOWN_APART}
        who = f"{entry.actor.get('kind')} {entry.actor.get('id')}"
        shown.add_row(str(entry.position), f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.type, who, _brief(said))
    out.print(shown)


SHOWN_APART = frozenset({"originator_id", "originator_version", "at", "by"})


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@click.option("--as-of", "as_of", help="A time (2026-03-01T12:00:00Z) or a position (4711) [now].")
@DATA
def state(about: UUID, as_of: str | None, data: Path | None) -> None:
    """How a thing stood at a moment, folded from the record alone."""
    from application.audit import state_of

    position, until = _moment(as_of)
    with explained(), the_log(running(data)) as log:
        found = state_of(about, until=until, position=position, log=log)
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


@main.command()
@click.option("--check", is_flag=True, help="Only compare: the live read models with those made anew. Exit code 1 when they differ.")
@DATA
def rebuild(data: Path | None, *, check: bool) -> None:
    """Make the read models again from the log, beside the live ones, and change over in one transaction."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from projections.worker import rebuild as made_anew

    given = running(data)
    with explained(), the_log(given) as log, Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err) as progress:
        bar = progress.add_task("rebuild", total=log.head())
        rebuilt = made_anew(given, check=check, progress=lambda position: progress.update(bar, completed=position))
    for name in rebuilt.differing:
        err.print(f"[red]differs[/red]: {name}")
    out.print(f"{rebuilt.events} events; " + ("live and rebuilt differ" if rebuilt.differing else "live and rebuilt are the same"))
    sys.exit(FAILED if check and rebuilt.differing else 0)


@main.group("dead-letters")
def dead_letters() -> None:
    """Events that could not be applied, and what waits behind them."""


@dead_letters.command("list")
@DATA
def list_dead_letters(data: Path | None) -> None:
    """Show each with its reason, and how many events of its stream are parked behind it."""
    from projections.worker import dead_letters as letters

    with explained():
        found = letters(running(data))
    shown = Table("position", "stream", "type", "reason", "parked", "since (UTC)", box=None)
    for one in found:
        shown.add_row(str(one.position), str(one.stream), one.type, one.reason, str(one.parked), f"{one.at:%Y-%m-%d %H:%M:%S}")
    out.print(shown if found else "There are none.")


@dead_letters.command()
@click.argument("position", type=int, required=False)
@DATA
def retry(position: int | None, data: Path | None) -> None:
    """Apply a dead letter (or all) again, and what is parked behind it. Harmless to repeat."""
    from projections.worker import retry_dead_letters

    with explained():
        healed, left = retry_dead_letters(running(data), position)
    out.print(f"{healed} applied, {left} left.")
    sys.exit(FAILED if left else 0)


# ---- copies ------------------------------------------------------------------------------------------------------------------------
@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@DATA
def backup(folder: Path, data: Path | None) -> None:
    """Copy the log and the images into FOLDER, while everything runs. Into the same folder again, only new images are copied.

    The root key is not in it: keep a copy of that file (keys/root.key in the data folder) somewhere else.
    """
    from infrastructure.backup import backup as copy
    from infrastructure.container import blobs, root_key

    given = running(data)
    with explained(), _steps() as progress:
        owner = given.postgres_owner_url or given.postgres_url
        manifest = copy(owner, blobs(given), folder, root=root_key(given), progress=progress)
    if manifest.missing:
        err.print(
            f"{len(manifest.missing)} files that the log names are not in the store, or damaged: those of deleted images, or lost ones."
        )
    out.print(
        f"{manifest.position} events and {len(manifest.blobs)} images and models are in {folder}. Keep {given.root_key_path} apart from it."
    )


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--root-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The copy of the root key file.")
@DATA
def restore(folder: Path, root_key: Path | None, data: Path | None) -> None:
    """Bring a backup into a new data folder (or the empty database that is set), verify the chain, make the read models again."""
    from infrastructure.backup import checked
    from infrastructure.container import verified
    from infrastructure.keys import RootKey
    from infrastructure.supervisor import Stack, root_key_of, take_root_key
    from projections.worker import rebuild as made_anew

    given = settings(data=data)
    with explained(), _steps() as progress:
        manifest = checked(folder, RootKey.read(root_key_of(given, root_key)), progress=progress)
        take_root_key(given, root_key)
        with Stack(given, processes=(), prepare=lambda there: _restored(there, folder, manifest, progress)) as there, the_log(there) as log:
            found = verified(there, log)
            beyond = found.finding if found.finding and found.finding.position > manifest.position else None
            if found.finding is None or beyond:
                made_anew(there, check=False)
    if beyond:
        fail(
            f"restored up to position {manifest.position}, but signed heads beside the blobs know of later events, which are lost"
            f" ({beyond.what}). Keep derived/heads of the blob store as evidence, and move it away: until then `audit verify` says so",
            TAMPERED,
        )
    if found.finding:
        fail(f"restored, but tampered at position {found.finding.position}: {found.finding.what}", TAMPERED)
    out.print(f"Restored: {found.events} events, hash {found.hash[:16]}…, read models made again. Start it with `bioscope up`.")


def _restored(there: Settings, folder: Path, manifest: Any, progress: Any) -> None:
    from infrastructure.backup import restore as bring
    from infrastructure.container import blobs
    from infrastructure.postgres.schema import migrate as apply

    owner = there.postgres_owner_url or there.postgres_url
    apply(owner)
    bring(owner, blobs(there), folder, manifest, progress=progress)


@contextmanager
def _steps() -> Iterator[Any]:
    """A progress bar for each kind of thing that is copied."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err) as progress:
        bars: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done + 1, total=total)

        yield step


# ---- people ------------------------------------------------------------------------------------------------------------------------
@main.group()
def users() -> None:
    """Accounts, from the server's own machine."""


@users.command("create-admin")
@click.argument("email")
@DATA
def create_admin(email: str, data: Path | None) -> None:
    """Make an administrator. The password (15 characters or more) is asked for, or taken from BIOSCOPE_ADMIN_PASSWORD."""
    given = running(data)
    password = os.environ.get("BIOSCOPE_ADMIN_PASSWORD") or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    with explained(), the_log(given) as log:
        _create_admin(given, log, email, password)
    out.print(f"{email} is an administrator.")


@users.command("set-role")
@click.argument("email")
@click.argument("role", type=click.Choice(["viewer", "analyst", "researcher", "admin"]))
@DATA
def set_role(email: str, role: str, data: Path | None) -> None:
    """Say what somebody may do: viewers read what is shared with them, analysts run, researchers keep datasets, admins do everything."""
    from application.accounts import change_role
    from domain.access import Role

    with explained(), the_log(running(data)) as log:
        change_role(_user_id(log, email), Role(role), command=_command("users set-role"), log=log)
    out.print(f"{email} is {role}.")


@users.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
def erase(email: str, data: Path | None, *, yes: bool) -> None:
    """Destroy a person's key: nothing private about them can be read any more. The record still verifies. There is no way back."""
    from application.accounts import erase as erase_user
    from infrastructure.container import refresh_tokens

    given = running(data)
    with explained(), the_log(given) as log:
        user_id = _user_id(log, email)
        if not yes:
            click.confirm(f"Erase {email} for ever?", abort=True)
        erase_user(user_id, command=_command("users erase"), log=log, tokens=refresh_tokens(given))
    out.print(f"{user_id} was erased.")


@main.group()
def tokens() -> None:
    """Access for programs: a classifier, an archive, a consumer of the event feed."""


@tokens.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(["images:read", "events:read"]), help="Repeatable.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is taken.")
@DATA
def create_token(name: str, scopes: tuple[str, ...], days: int, data: Path | None) -> None:
    """Print a token for the service NAME, once. It can do what its scopes say, and nothing else.

    \b
      images:read   read any image, its preview and its download
      events:read   read the event feed
    It is not kept anywhere, and ends by itself: a lost one can only be waited for, or the root key changed.
    """
    from infrastructure.access_tokens import SignedAccessTokens
    from infrastructure.keys import RootKey

    given = settings(data=data)
    with explained():
        signing = SignedAccessTokens(RootKey.read(given.root_key_path), ttl=given.access_ttl)
        click.echo(signing.issue_service(name=name, scopes=frozenset(scopes), seconds=days * 86400, at=datetime.now(UTC)))


@main.command()
@URL
@click.option("--email", help="Asked for when missing.")
def login(url: str | None, email: str | None) -> None:
    """Sign in; the token is kept in a file that only you can read. In scripts, set BIOSCOPE_TOKEN (and BIOSCOPE_URL) instead."""
    from api.client import TOKEN_FILE, Client, keep_credentials

    address = email or click.prompt("E-mail")
    password = os.environ.get("BIOSCOPE_PASSWORD") or click.prompt("Password", hide_input=True)
    with explained():
        Client.sign_in(url or os.environ.get("BIOSCOPE_URL") or "http://127.0.0.1:8000", address, password, keep=keep_credentials)
    out.print(f"Signed in; the token is in {TOKEN_FILE}.")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--model", help="Name of a model [the installation's own choice].")
@click.option("--dataset", help="Name of the dataset that is made [the folder's name].")
@click.option("--csv", "how", flag_value="csv", help="The results as CSV.")
@click.option("--json", "how", flag_value="json", help="The results as JSON.")
@URL
def classify(folder: Path, model: str | None, dataset: str | None, how: str | None, url: str | None) -> None:
    """Upload the images of FOLDER (JPEG, PNG, TIFF; sub-folders too) as a dataset, run a model over it, show the results.

    A column `label` of a manifest.csv in the folder is taken as the truth. Exit code 1 when an image has no result.
    """
    from api import terminal
    from api.client import Client, keep_credentials, kept_credentials, pictures_in

    credentials = kept_credentials()
    if credentials is None:
        fail("sign in first: bioscope login", WRONG_USE)
    paths = pictures_in(folder)
    if not paths:
        fail(f"{folder} holds no .jpg, .jpeg, .png, .tif or .tiff file", WRONG_USE)
    credentials = msgspec.structs.replace(credentials, url=url or credentials.url)
    with explained(), Client(credentials, keep=keep_credentials) as client:
        _check_model(client, model)
        report = terminal.classify(
            client, paths, dataset_name=dataset or folder.resolve().name, model=model, truth=terminal.truth_in(folder), console=err
        )
    match how:
        case "csv":
            click.echo(terminal.as_csv(report), nl=False)
        case "json":
            click.echo(terminal.as_json(report))
        case _:
            out.print(terminal.table(report))
    err.print(terminal.summary(report), highlight=False)
    sys.exit(FAILED if report.failures or report.status != "completed" else 0)


def _check_model(client: Any, wanted: str | None) -> None:
    """Before anything is uploaded."""
    known = [model["name"] for model in client.get("/api/models")] if wanted else []
    if wanted and wanted not in known:
        fail(f"there is no model {wanted!r}; there are: {', '.join(known) or 'none'}", WRONG_USE)


# ---- documents ---------------------------------------------------------------------------------------------------------------------
@main.group()
def asyncapi() -> None:
    """The event stream, described for its consumers."""


@asyncapi.command("export")
def export_asyncapi() -> None:
    """Print the AsyncAPI document (JSON)."""
    from application.schemas import document

    click.echo(msgspec.json.format(msgspec.json.encode(document()), indent=2))


@main.group()
def openapi() -> None:
    """The HTTP API, described for its clients."""


@openapi.command("export")
def export_openapi() -> None:
    """Print the OpenAPI document (JSON)."""
    from api.docs import document

    click.echo(msgspec.json.format(msgspec.json.encode(document()), indent=2))


# ---- what the commands share -------------------------------------------------------------------------------------------------------
def running(data: Path | None) -> Settings:
    """The settings of the system that runs here: those given, completed by what `bioscope up` wrote into its data folder."""
    from infrastructure.supervisor import NotRunning, running_settings

    given = settings(data=data)
    try:
        return running_settings(given)
    except NotRunning as not_running:
        fail(str(not_running), AWAY)


@contextmanager
def the_log(given: Settings) -> Iterator[Any]:
    from infrastructure.event_store import EventLog
    from infrastructure.keys import RootKey
    from infrastructure.recorder import PostgresRecorder

    root = RootKey.read(given.root_key_path)
    log = EventLog(PostgresRecorder(given.postgres_url, root), root)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def explained() -> Iterator[None]:
    """Whatever the user can mend is told in a sentence; all else keeps its traceback."""
    import httpx

    from api.client import Refused
    from domain.errors import DomainError, Unavailable
    from infrastructure.backup import NoBackup
    from infrastructure.keys import WrongRootKey
    from infrastructure.postgres.schema import SchemaBehind
    from infrastructure.supervisor import AlreadyRunning, CannotStart

    try:
        yield
    except AlreadyRunning as taken:
        fail(str(taken), TAKEN)
    except (CannotStart, NoBackup, SchemaBehind, Refused) as refused:
        fail(str(refused))
    except WrongRootKey as wrong:
        fail(str(wrong), WRONG_USE)
    except Unavailable as away:
        fail(away.detail, AWAY)
    except DomainError as error:
        fail(error.detail)
    except httpx.TransportError as error:
        fail(f"no answer from the API ({type(error).__name__}): is `bioscope up` running, and is --url right?", AWAY)


def _needs(given: Settings, *names: str) -> None:
    for name in names:
        if not getattr(given, name):
            fail(f"BIOSCOPE_{name.upper()} is not set: it is needed by this process (`bioscope up` sets it for an embedded one)", WRONG_USE)


def _process(name: str, *needed: str) -> Settings:
    """The settings of one of our processes, which logs from now on. In production weak settings end it."""
    from infrastructure.telemetry import configure_logging

    given = settings()
    _needs(given, *needed)
    if given.environment == "production":
        from infrastructure.doctor import refusals

        found = refusals(given)
        for finding in found:
            err.print(f"[red]{finding.what}[/red]: {finding.said}", highlight=False, soft_wrap=True)
        if found:
            fail("weak settings are refused in production; see `bioscope doctor`", WRONG_USE)
    configure_logging(given, name)
    return given


def _serve_figures(given: Settings) -> None:
    from infrastructure.figures import serve_metrics

    serve_metrics(given)


def _command(name: str) -> Any:
    from application.ports import Command
    from domain.access import Actor
    from domain.values import system_actor

    return Command(id=uuid4(), actor=Actor(id=system_actor(f"cli {name}"), kind="system"), at=datetime.now(UTC))


def _create_admin(given: Settings, log: Any, email: str, password: str) -> None:
    from application.accounts import register
    from domain.access import Role
    from infrastructure.container import passwords

    name = email.partition("@")[0]
    register(
        email=email,
        username=name if len(name) >= 3 else f"{name}-admin",
        first_name=name[:50] or "Admin",
        last_name="Administrator",
        password=password,
        role=Role.ADMIN,
        command=_command("users create-admin"),
        log=log,
        passwords=passwords(given),
    )


def _user_id(log: Any, email: str) -> UUID:
    found: UUID | None = log.claimed("email", email)
    if found is None:
        fail(f"there is no account with the address {email}")
    return found


def _verified(given: Settings, log: Any) -> Any:
    from infrastructure.container import verified

    return verified(given, log)


def _moment(text: str | None) -> tuple[int | None, datetime | None]:
    from application.audit import moment
    from domain.errors import Invalid

    try:
        return moment(text)
    except Invalid as wrong:
        fail(wrong.detail, WRONG_USE)


def _brief(said: dict[str, Any]) -> str:
    text = ", ".join(f"{name}={value}" for name, value in said.items() if value not in (None, [], {}))
    return text if len(text) <= 160 else text[:159] + "…"


if __name__ == "__main__":
    main()
