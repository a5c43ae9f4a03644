"""The commands for mail, and invitations from the command line to the mail."""

import json
from email import message_from_bytes
from email.policy import default

import psycopg
import pytest

from scripts.commands import shapes
from tests.api.test_commands import assert_shape
from tests.api.test_users_command import bioscope
from tests.rigs.smtp_server import SmtpRig
from tests.rigs.waiting import wait_until_async

__all__ = ["bioscope"]
pytestmark = pytest.mark.anyio


async def test_a_test_mail_reaches_the_server(bioscope, monkeypatch):
    with SmtpRig() as rig:
        monkeypatch.setenv("BIOSCOPE_SMTP_URL", rig.url)
        ended = await bioscope("mail", "test", "ada@example.org")
        assert ended.stderr == f"The mail to ada@example.org was handed over to the SMTP server 127.0.0.1:{rig.port}.\n"
    assert [str(message["Subject"]) for message in rig.received] == ["Test of mail"]


async def test_a_test_mail_without_a_server_is_a_file_that_only_its_owner_reads(bioscope, lab_settings):
    ended = await bioscope("mail", "test", "ada@example.org")
    assert ended.stderr.split() == f"The mail to ada@example.org was handed over to the folder {lab_settings.mail_path}.".split()
    (file,) = lab_settings.mail_path.iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert str(message_from_bytes(file.read_bytes(), policy=default)["To"]) == "ada@example.org"


@pytest.mark.parametrize(
    ("answer", "words"), [("550 no", "refuses the recipient with code 550"), ("450 later", "code 450"), ("421 busy", "code 421")]
)
async def test_a_test_mail_that_is_not_taken_ends_with_the_reason(bioscope, monkeypatch, answer, words):
    with SmtpRig(rcpt={"ada@example.org": answer}) as rig:
        monkeypatch.setenv("BIOSCOPE_SMTP_URL", rig.url)
        ended = await bioscope("mail", "test", "ada@example.org", code=1)
    assert "the mail was not sent" in ended.stderr
    assert words in ended.stderr


@pytest.mark.parametrize("address", ["a,b@example.org", "ada", "a\r\nBcc: eve@example.org", "\udcff@example.org", "x" * 10_000])
async def test_a_test_mail_to_something_else_than_an_address_is_refused(bioscope, lab_settings, address):
    assert "the address cannot be used" in (await bioscope("mail", "test", address, code=1)).stderr
    assert not lab_settings.mail_path.exists()


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_a_password_that_is_missing_is_named(bioscope, monkeypatch, tmp_path, content):
    file = tmp_path / "smtp_password"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("BIOSCOPE_SMTP_URL", "smtp://lab@127.0.0.1:1")
    assert "BIOSCOPE_SMTP_PASSWORD_FILE is not set" in (await bioscope("mail", "test", "ada@example.org", code=2)).stderr
    monkeypatch.setenv("BIOSCOPE_SMTP_PASSWORD_FILE", str(file))
    assert f"BIOSCOPE_SMTP_PASSWORD_FILE: {file}" in (await bioscope("mail", "test", "ada@example.org", code=2)).stderr


async def test_the_status_shows_what_hinders_mails(bioscope, lab_settings):
    with psycopg.connect(lab_settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("insert into ops.mail_failures values (7, 1, 'code 550', 1, now(), null), (8, 1, 'code 450', 2, now(), now())")
        owner.execute("update ops.mail_checkpoint set problem = 'the SMTP server does not answer', problem_since = now()")
    shown = json.loads((await bioscope("mail", "status", "--json")).stdout)
    assert (shown["deferred"], shown["refused"], shown["problem"]) == (1, 1, "the SMTP server does not answer")
    assert sorted((one["position"], one["attempts"], one["next_attempt_at"] is None) for one in shown["failures"]) == [
        (7, 1, True),
        (8, 2, False),
    ]
    table = (await bioscope("mail", "status")).stdout
    assert all(words in table for words in (f"the folder {lab_settings.mail_path}", "does not answer, since", "code 550", "never"))


async def test_an_invitation_from_the_command_line_becomes_a_mail_with_a_link_to_the_public_address(api, bioscope, lab_settings):
    assert "email must be one address" in (await bioscope("users", "invite", "col<league>@example.org", code=1)).stderr
    ended = await bioscope("users", "invite", "colleague@example.org", "--role", "analyst")
    assert "colleague@example.org is invited with the role analyst" in ended.stderr
    await wait_until_async(lambda: list(lab_settings.mail_path.glob("*.eml")))
    (file,) = lab_settings.mail_path.glob("*.eml")
    mail = message_from_bytes(file.read_bytes(), policy=default)
    assert str(mail["To"]) == "colleague@example.org"
    assert f"the folder {lab_settings.mail_path}" in ended.stderr.replace("\n", " ")
    assert f"{lab_settings.base_url}/account/invitation?token=bsl_" in mail.get_body(["plain"]).get_content()


async def test_nobody_is_invited_while_registration_is_closed(bioscope, lab_settings, monkeypatch):
    monkeypatch.setenv("BIOSCOPE_REGISTRATION", "closed")
    assert "BIOSCOPE_REGISTRATION is closed" in (await bioscope("users", "invite", "late@example.org", code=2)).stderr
    monkeypatch.delenv("BIOSCOPE_REGISTRATION")
    assert (await bioscope("users", "invitations")).stdout == "There is no open invitation.\n"


async def test_an_open_invitation_is_sent_again_with_a_new_link_listed_and_withdrawn(api, bioscope, lab_settings):
    assert "no open invitation" in (await bioscope("users", "invite", "late@example.org", "--again", code=1)).output
    await bioscope("users", "invite", "late@example.org")
    await wait_until_async(lambda: len(list(lab_settings.mail_path.glob("*.eml"))) == 1)
    refused = await bioscope("users", "invite", "late@example.org", code=1)
    assert "--again" in refused.output
    assert "invited again" in (await bioscope("users", "invite", "late@example.org", "--again")).stderr
    await wait_until_async(lambda: len(list(lab_settings.mail_path.glob("*.eml"))) == 2)
    bodies = {file.read_bytes() for file in lab_settings.mail_path.glob("*.eml")}
    assert len({message_from_bytes(body, policy=default).get_body(["plain"]).get_content() for body in bodies}) == 2
    listed = await bioscope("users", "invitations", "--json")
    assert_shape(shapes()["bioscope users invitations"], listed.stdout)
    [found] = json.loads(listed.stdout)
    assert (found["email"], found["role"], found["status"], found["user_id"]) == ("late@example.org", "viewer", "open", None)
    assert found["id"] in (await bioscope("users", "invitations")).stdout
    assert "The invitation of late@example.org is withdrawn." in (await bioscope("users", "withdraw-invitation", "late@example.org")).stderr
    assert "no open invitation" in (await bioscope("users", "withdraw-invitation", "late@example.org", code=1)).output
    assert (await bioscope("users", "invitations")).stdout == "There is no open invitation.\n"
    [closed] = json.loads((await bioscope("users", "invitations", "--all", "--json")).stdout)
    assert (closed["id"], closed["email"], closed["status"]) == (found["id"], None, "withdrawn")
    await bioscope("users", "invite", "late@example.org")
    [again] = json.loads((await bioscope("users", "invitations", "--limit", "1", "--json")).stdout)
    await bioscope("users", "withdraw-invitation", again["id"])
