"""Commands for mail, on the server's machine."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from api.cli.commands import argument, group, json_option
from api.cli.common import DATA, load_settings, running_installation
from api.cli.output import Column, fail, out, print_fields, print_json, print_message, print_table
from api.cli.shapes import MailFailure, MailStatus
from domain.values import printable

FAILURES_SHOWN = 20


@group()
def mail() -> None:
    """Test the mail server, and show how far mails were sent."""


@mail.command("test", example="bioscope mail test you@example.org")
@argument("address", help="E-mail address of the recipient.")
@DATA
def send_test(address: str, data: Path | None) -> None:
    """Send a test mail, and say what happened.

    Without BIOSCOPE_SMTP_URL, the mail is written to the folder `mail` of the data folder.
    """
    from application.mail import contents
    from application.mail.contents import Pages
    from application.mail.mail import MailDeferred, MailRefused, MailServerUnavailable
    from application.mail.mails import written
    from infrastructure.mail.transport import transport_of

    settings = load_settings(data=data)
    transport, pages = transport_of(settings), Pages(settings.base_url)
    trial = written(contents.trial(pages), pages, event_id=uuid4(), to=address, at=datetime.now(UTC))
    try:
        transport.send(trial)
    except (MailRefused, MailDeferred, MailServerUnavailable) as error:
        fail(f"the mail was not sent: {error}")
    print_message(f"The mail to {printable(address)} was handed over to {transport}.")


@mail.command(example="bioscope mail status")
@DATA
@json_option(MailStatus)
def status(data: Path | None, *, as_json: bool) -> None:
    """Show how far mails were sent, and which ones were not accepted."""
    from infrastructure.mail.records import mail_status
    from infrastructure.mail.transport import transport_of
    from infrastructure.postgres.profiles import DIAGNOSIS

    settings = running_installation(data)
    with DIAGNOSIS.connect_unmonitored(settings.postgres_url) as connection:
        found = mail_status(connection, failures=FAILURES_SHOWN)
    shown = msgspec.convert(msgspec.structs.asdict(found) | {"sent_to": str(transport_of(settings))}, MailStatus, from_attributes=True)
    print_json(shown) if as_json else _print(shown)


def _print(shown: MailStatus) -> None:
    print_fields(
        [
            ("sent to", shown.sent_to),
            ("position", f"{shown.position} of {shown.head}"),
            ("problem", _problem(shown)),
            ("deferred", str(shown.deferred)),
            ("refused", str(shown.refused)),
        ]
    )
    if shown.failures:
        out.print()
        columns = [Column("event"), Column("attempts", right=True), Column("last"), Column("next"), Column("reason", wraps=True)]
        print_table(columns, [_row(failure) for failure in shown.failures])


def _problem(shown: MailStatus) -> str:
    return f"{shown.problem}, since {_time(shown.problem_since)}" if shown.problem else "none"


def _row(failure: MailFailure) -> list[str]:
    return [str(failure.position), str(failure.attempts), _time(failure.failed_at), _time(failure.next_attempt_at), failure.reason]


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
