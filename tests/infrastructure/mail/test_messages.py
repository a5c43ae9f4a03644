"""Mails as messages and as files: an address brings no header and no second recipient, and only the newest files are kept."""

from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from application.mail.mail import Mail, MailRefused, MailServerUnavailable
from domain.email_address import new_address
from domain.errors import Invalid
from infrastructure.configuration.settings import Settings
from infrastructure.mail.folder import MailFolder
from infrastructure.mail.messages import message_of, recipient_of, sender_of
from infrastructure.mail.transport import transport_of

SENDER = Address("BioScopeAI", addr_spec="bioscope@lab.example.org")
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version", "Content-Type"]


def mail(to="ada@example.org", **changes):
    given = {
        "event_id": UUID(int=7),
        "number": 1,
        "to": to,
        "at": AT,
        "subject": "Test of mail",
        "text": "Hello\n",
        "html": "<p>Hello</p>\n",
    }
    return Mail(**given | changes)


texts = st.text(max_size=200)
parts = st.sampled_from(
    [
        "ada",
        "@",
        "example.org",
        ",",
        "<",
        ">",
        '"',
        ":",
        ";",
        "\r\n",
        "Bcc: eve@example.org",
        " ",
        "(",
        ")",
        "\\",
        "=?utf-8?q?a?=",
        "ä",
        "\x00",
    ]
)


@given(st.lists(parts, min_size=1, max_size=8).map("".join) | texts)
@example("ada@example.org\r\nBcc: eve@example.org")
@example("ada@example.org, eve@example.org")
@example('"a@b"@example.org')
def test_an_address_is_one_recipient_and_no_header_or_is_refused(to):
    try:
        message = message_of(mail(to), SENDER)
    except MailRefused:
        return
    again = message_from_bytes(bytes(message), policy=default)
    assert again.keys() == HEADERS
    assert [one.addr_spec for one in again["To"].addresses] == [recipient_of(mail(to)).addr_spec]
    assert "\n" not in recipient_of(mail(to)).addr_spec


@given(st.from_regex(r"[a-z0-9._+-]{1,20}@[a-z0-9-]{1,20}\.[a-z]{2,6}", fullmatch=True))
def test_usual_addresses_are_used_as_they_are(to):
    try:
        message = message_of(mail(new_address(to)), SENDER)
    except Invalid:
        assert to.startswith(".") or ".." in to or ".@" in to or "-." in to or "@-" in to
        return
    assert message["To"].addresses[0].addr_spec == to


@given(st.lists(parts | st.characters() | st.sampled_from(["ü", "xn--", ".", "@b."]), min_size=3, max_size=8).map("".join))
@example("o'brien+{x}@ex_ample.org")
@example("ada@\u05d0.example")
def test_every_address_that_is_accepted_can_get_a_mail(to):
    try:
        stored = new_address(to)
    except Invalid:
        return
    assert message_of(mail(stored), SENDER)["To"].addresses[0].addr_spec == recipient_of(mail(stored)).addr_spec


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=300), max_size=5).map("\n".join))
def test_every_text_arrives(text):
    message = message_from_bytes(bytes(message_of(mail(text=text, html=text), SENDER)), policy=default)
    expected = "\n".join(text.splitlines())
    for kind in ("plain", "html"):
        assert "\n".join(message.get_body([kind]).get_content().splitlines()) == expected


@pytest.mark.parametrize(
    ("mail_from", "base_url", "sender"),
    [
        ("", "https://lab.example.org/bioscope", "BioScopeAI <bioscope@lab.example.org>"),
        ("", "http://127.0.0.1:8000", "BioScopeAI <bioscope@127.0.0.1>"),
        ("it@lab.example.org", "https://x", "BioScopeAI <it@lab.example.org>"),
        ("Laboratory <it@lab.example.org>", "https://x", "Laboratory <it@lab.example.org>"),
    ],
)
def test_the_sender_is_the_one_in_the_settings_or_at_the_host_of_the_installation(mail_from, base_url, sender):
    assert str(sender_of(mail_from, base_url)) == sender


# ---- files -------------------------------------------------------------------------------------------------------------------------
def test_a_mail_is_a_file_and_the_same_mail_the_same_file(tmp_path):
    folder = MailFolder(tmp_path / "mail", SENDER)
    folder.send(mail())
    folder.send(mail())
    (file,) = (tmp_path / "mail").iterdir()
    assert file == folder.path_of(mail())
    assert file.read_bytes() == bytes(message_of(mail(), SENDER))


def test_only_the_newest_files_are_kept(tmp_path):
    folder = MailFolder(tmp_path, SENDER, kept=3)
    mails = [mail(event_id=uuid4(), at=AT + timedelta(seconds=number)) for number in range(5)]
    for one in mails:
        folder.send(one)
    assert sorted(tmp_path.iterdir()) == [folder.path_of(one) for one in mails[-3:]]


def test_a_folder_that_cannot_be_written_to_lets_mails_wait(tmp_path):
    (tmp_path / "mail").write_text("in the way")
    with pytest.raises(MailServerUnavailable, match="cannot be written to"):
        MailFolder(tmp_path / "mail", SENDER).send(mail())


def test_a_refused_address_leaves_no_file(tmp_path):
    with pytest.raises(MailRefused):
        MailFolder(tmp_path / "mail", SENDER).send(mail("a,b@example.org"))
    assert not (tmp_path / "mail").exists()


def test_the_settings_choose_between_a_server_and_a_folder(tmp_path):
    settings = Settings(data=tmp_path)
    assert str(transport_of(settings)) == f"the folder {settings.mail_path}"
    with_server = msgspec.structs.replace(settings, smtp_url="smtps://mail.example.org")
    assert str(transport_of(with_server)) == "the SMTP server mail.example.org:465"
