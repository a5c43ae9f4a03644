"""Mails over SMTP, against a real server on loopback: encrypted, signed in, refused, deferred, slow, cut off."""

import asyncio
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from uuid import UUID

import msgspec
import pytest

from application.mail.mail import Mail, MailDeferred, MailRefused, MailServerUnavailable
from infrastructure.mail.smtp import SmtpLimits, SmtpServer, SmtpTransport
from tests.rigs.smtp_server import SmtpRig, certificate

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # on loopback
SENDER = Address("BioScopeAI", addr_spec="bioscope@lab.example.org")
MAIL = Mail(
    event_id=UUID(int=7),
    number=1,
    to="ada@example.org",
    at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    subject="Verify your e-mail address",
    text="Hello,\n\nhttps://lab.example.org/account/verify?token=bsl_" + "x" * 120 + "\n",
    html="<p>Hello &amp; welcome</p>\n",
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """The context of a server, and of a client that trusts only this server."""
    server, file = certificate(tmp_path_factory.mktemp("certificate"))
    return server, ssl.create_default_context(cafile=str(file))


def send(rig, mail=MAIL, *, login=("", ""), encrypts=False, context=None, limits=None):
    user, password = login
    server = SmtpServer.at(rig.url, password)._replace(user=user, encrypts=encrypts or rig.url.startswith("smtps"))
    SmtpTransport(server, SENDER, tls=context, limits=limits or SmtpLimits(answer_seconds=5, total_seconds=5)).send(mail)


def test_a_mail_arrives_with_both_forms_and_its_headers():
    with SmtpRig() as rig:
        send(rig)
    (message,) = rig.received
    assert rig.recipients == [["ada@example.org"]]
    assert {name: str(message[name]) for name in ("From", "To", "Subject", "Message-ID", "Auto-Submitted")} == {
        "From": "BioScopeAI <bioscope@lab.example.org>",
        "To": "ada@example.org",
        "Subject": "Verify your e-mail address",
        "Message-ID": f"<{UUID(int=7)}.1@lab.example.org>",
        "Auto-Submitted": "auto-generated",
    }
    assert message["Date"].datetime == MAIL.at
    assert [message.get_body([kind]).get_content().replace("\r\n", "\n") for kind in ("plain", "html")] == [MAIL.text, MAIL.html]


def test_the_same_mail_is_the_same_message():
    with SmtpRig() as rig:
        send(rig)
        send(rig)
    first, again = (bytes(message) for message in rig.received)
    assert first == again


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["STARTTLS", "smtps"])
def test_a_connection_is_encrypted_and_signed_in(tls, implicit_tls):
    server, client = tls
    with SmtpRig(tls=server, implicit_tls=implicit_tls, login=("lab@example.org", "s3cret")) as rig:
        send(rig, login=("lab@example.org", "s3cret"), encrypts=True, context=client)
        assert rig.logins == [("lab@example.org", "s3cret")]
        assert len(rig.received) == 1


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["STARTTLS", "smtps"])
def test_a_certificate_of_a_stranger_is_refused_before_anything_is_sent(tls, implicit_tls):
    server, _ = tls
    with SmtpRig(tls=server, implicit_tls=implicit_tls, login=("lab", "s3cret")) as rig:
        with pytest.raises(MailServerUnavailable, match=r"the certificate of the SMTP server 127.0.0.1:\d+ is not valid"):
            send(rig, login=("lab", "s3cret"), encrypts=True, context=ssl.create_default_context())
        assert (rig.logins, rig.received) == ([], [])


def test_a_server_without_encryption_gets_neither_password_nor_mail():
    with SmtpRig(login=("lab", "s3cret")) as rig:
        with pytest.raises(MailServerUnavailable, match="supports neither STARTTLS nor sign-in"):
            send(rig, login=("lab", "s3cret"), encrypts=True)
        assert (rig.logins, rig.received) == ([], [])


@pytest.mark.parametrize(
    ("url", "port", "encrypts", "implicit_tls"),
    [
        ("smtp://mail.example.org", 587, True, False),
        ("smtp://mail.example.org:2525", 2525, True, False),
        ("smtps://mail.example.org", 465, True, True),
        ("smtp://127.0.0.1:25", 25, False, False),
        ("smtp://[::1]", 587, False, False),
        ("smtp://127.0.0.1.example.org", 587, True, False),
        ("smtps://localhost", 465, True, True),
    ],
)
def test_only_this_machine_is_reached_without_encryption(url, port, encrypts, implicit_tls):
    server = SmtpServer.at(url)
    assert (server.port, server.encrypts, server.implicit_tls) == (port, encrypts, implicit_tls)


def test_the_user_name_is_part_of_the_address():
    assert SmtpServer.at("smtps://lab%40example.org@mail.example.org", "s3cret")[2:4] == ("lab@example.org", "s3cret")


def test_a_wrong_password_is_a_problem_of_the_installation():
    with (
        SmtpRig(login=("lab", "s3cret")) as rig,
        pytest.raises(MailServerUnavailable, match="user name or password with code 535") as error,
    ):
        send(rig, login=("lab", "wrong password"))
    assert "wrong password" not in str(error.value)


def test_a_server_that_requires_sign_in_is_a_problem_of_the_installation():
    with SmtpRig(login=("lab", "s3cret")) as rig, pytest.raises(MailServerUnavailable, match="code 530"):
        send(rig)


@pytest.mark.parametrize(
    ("answer", "error"),
    [("550 no mailbox ada@example.org", MailRefused), ("450 try later ada@example.org", MailDeferred), ("421 busy", MailServerUnavailable)],
)
def test_a_recipient_is_refused_or_deferred_and_the_reason_names_no_address(answer, error):
    with SmtpRig(rcpt={"ada@example.org": answer}) as rig, pytest.raises(error, match=answer[:3]) as raised:
        send(rig)
    assert "ada" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "error"), [("554 spam", MailRefused), ("451 try later", MailDeferred), ("421 shutting down", MailServerUnavailable)]
)
def test_a_message_is_refused_or_deferred(answer, error):
    with SmtpRig(data=answer) as rig, pytest.raises(error):
        send(rig)


def test_a_connection_that_ends_before_the_answer_leaves_the_mail_unsent():
    async def cut(server):
        server.transport.abort()
        await asyncio.sleep(60)

    with SmtpRig(before_data=cut) as rig, pytest.raises(MailServerUnavailable):
        send(rig)


def test_a_server_that_does_not_answer_is_not_waited_for():
    async def sleep(_):
        await asyncio.sleep(60)

    with SmtpRig(before_data=sleep) as rig, pytest.raises(MailServerUnavailable):
        send(rig, limits=SmtpLimits(answer_seconds=0.2, total_seconds=5))


def test_a_server_that_answers_byte_by_byte_is_not_waited_for():
    async def drip(server):
        while True:
            server._writer.write(b"2")
            await asyncio.sleep(0.05)

    with SmtpRig(before_data=drip) as rig, pytest.raises(MailServerUnavailable):
        send(rig, limits=SmtpLimits(answer_seconds=5, total_seconds=0.5))


def test_a_mail_that_was_taken_is_sent_whatever_the_server_answers_to_the_farewell(monkeypatch):
    async def quit_badly(server, _):
        await server.push("550 no")
        server.transport.abort()

    monkeypatch.setattr("aiosmtpd.smtp.SMTP.smtp_QUIT", quit_badly)
    with SmtpRig() as rig:
        send(rig)
        assert len(rig.received) == 1


def test_no_server_is_a_problem_of_the_installation():
    with SmtpRig() as rig:
        pass
    with pytest.raises(MailServerUnavailable, match="Connection refused"):
        send(rig)


@pytest.mark.parametrize(
    "address",
    ["a,b@example.org", "a@b@example.org", "<a@example.org>", "a;b@example.org", "a\x00b@example.org", "ädä@example.org", "a", "@", "a@"],
)
def test_an_address_with_more_meanings_than_one_is_refused_before_a_connection(address):
    with SmtpRig() as rig:
        with pytest.raises(MailRefused, match="the address cannot be used"):
            send(rig, msgspec.structs.replace(MAIL, to=address))
        assert rig.received == []


def test_a_domain_beyond_ascii_is_written_in_the_form_of_dns():
    with SmtpRig() as rig:
        send(rig, msgspec.structs.replace(MAIL, to="ada@münchen.example"))
    assert rig.recipients == [["ada@xn--mnchen-3ya.example"]]
