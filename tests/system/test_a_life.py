"""A person is invited by mail, works, is demoted while connected, resets a forgotten password and is deleted; the audit shows all of it."""

import pytest

from tests.rigs.a_life import STEPS, installation, life
from tests.rigs.browser import PROGRAM
from tests.rigs.waiting import wait_until

pytestmark = pytest.mark.long

OF_THE_PERSON = [
    "Anna Kowalska registered",
    "Anna Kowalska accepted an invitation",
    "Anna Kowalska signed in",
    "Anna Kowalska created the dataset Blood smears",
    "Anna Kowalska issued the key microscope 3: images:write, for 1 dataset only",
    "Anna Kowalska uploaded smear-1.jpg with the key microscope 3",
    "Anna Kowalska used the key microscope 3 from 127.0.0.1",
    "Anna Kowalska tried to upload an image with the key microscope 3, and did not find the dataset Biopsies",
    "Anna Kowalska looked at smear-1.jpg (dataset Blood smears)",
    "Anna Kowalska read live events as an administrator",
    "Anna Kowalska tried to read a list of users, and was refused",
    "Anna Kowalska tried to upload an image with the key microscope 3, and was refused",
    "Anna Kowalska chose a new password with the link of a mail",
    "Anna Kowalska signed in",
]
ABOUT_THE_ACCOUNT = [
    "Anna Kowalska registered",
    "Anna Kowalska accepted an invitation",
    "Anna Kowalska signed in",
    "Anna Kowalska issued the key microscope 3: images:write, for 1 dataset only",
    "Ada Byron gave Anna Kowalska the role admin",
    "Ada Byron gave Anna Kowalska the role viewer",
    "Somebody tried to sign in as Anna Kowalska from 127.0.0.1, and was refused",
    "A link to reset the password of Anna Kowalska was requested",
    "A session of Anna Kowalska ended: password reset",
    "Anna Kowalska chose a new password with the link of a mail",
    "Somebody used an invalid token of Anna Kowalska from 127.0.0.1",
    "Somebody tried to sign in as Anna Kowalska from 127.0.0.1, and was refused",
    "Anna Kowalska signed in",
    "A session of Anna Kowalska ended: the account was no longer active",
    "Ada Byron closed the account of Anna Kowalska",
    "Somebody used an invalid token of Anna Kowalska from 127.0.0.1",
]
ABOUT_THE_IMAGE = [
    "Anna Kowalska uploaded smear-1.jpg with the key microscope 3",
    "smear-1.jpg was accepted: 360 x 363 pixels",
    "Anna Kowalska looked at smear-1.jpg (dataset Blood smears)",
    "Ada Byron looked at smear-1.jpg (dataset Blood smears)",
]
OF_ALL = {
    "Ada Byron invited a person as researcher",
    "Somebody opened a link that does not work from 127.0.0.1",
}


@pytest.fixture(scope="module", params=["chromium", "a browser without scripts"])
def story(request, tmp_path_factory):
    if request.param == "chromium" and PROGRAM is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path_factory.mktemp("life")
    with (
        installation(folder) as (settings, mails),
        life(settings, mails, folder, in_chromium=request.param == "chromium", report=print) as story,
    ):
        for step in STEPS:
            step(story)
        yield story


def without_repeats(sentences):
    """Each sentence once where it follows itself."""
    return [one for number, one in enumerate(sentences) if number == 0 or one != sentences[number - 1]]


def recorded(story, expected, **query):
    """The sentences of the audit, once the last of `expected` is recorded as often as expected."""

    def complete():
        found = without_repeats(story.sentences(**query))
        return found if found.count(expected[-1]) >= expected.count(expected[-1]) else None

    return list(wait_until(complete, within=20, explain=lambda: "\n".join(story.sentences(**query))))


def test_the_audit_tells_what_the_person_did(story):
    found = recorded(story, OF_THE_PERSON, actor=story.id)
    assert found == OF_THE_PERSON, "\n".join(found)


def test_the_audit_tells_what_happened_to_the_account(story):
    found = recorded(story, ABOUT_THE_ACCOUNT, object=story.id)
    assert found == ABOUT_THE_ACCOUNT, "\n".join(found)


def test_the_audit_tells_what_happened_to_the_image(story):
    found = recorded(story, ABOUT_THE_IMAGE, object=story.image)
    assert found == ABOUT_THE_IMAGE, "\n".join(found)


def test_the_audit_tells_the_rest(story):
    assert set(story.sentences()) >= OF_ALL


def test_the_command_line_tells_the_same(story):
    """`bioscope audit log` and `bioscope audit who`, on the machine of the server."""
    expected = recorded(story, OF_THE_PERSON, actor=story.id)
    assert without_repeats([line["sentence"] for line in story.command("audit", "log", "--actor", story.id)]) == expected
    looks = {(look["name"], look["kind"], look["times"]) for look in story.command("audit", "who", story.image)}
    assert looks == {("Anna Kowalska", "preview", 1), ("Ada Byron", "preview", 1)}


def test_the_record_is_intact(story):
    assert story.command("audit", "verify")["intact"] is True


def test_the_mails_are_an_invitation_a_reset_and_a_notice(story):
    invitation, reset, notice = [mail["Subject"] for mail in story.mails.received]
    assert invitation == "You are invited to BioScopeAI"
    assert "password" in reset
    assert notice == "Your password was changed"
