"""The life of an account, from the invitation to the deletion, and what the audit says about it afterwards.

Run it alone with `python -m tests.rigs.a_life`: it starts a system and a mail server, and prints each step with its sentences.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
from msgspec import structs
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from api.cli.client.api_client import Client
from infrastructure.embedded.supervisor import SupervisedStack
from tests.rigs.browser import PROGRAM, browser
from tests.rigs.page_visitors import ChromiumVisitor, FormVisitor
from tests.rigs.smtp_server import SmtpRig
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, made_account, prepare, stack_settings

ADMIN = "grace@example.org"
ADDRESS = "anna@example.org"
FIRST_PASSWORD = "violet glacier anchor 4"
SECOND_PASSWORD = "marble harbour kettle 7"
MICROGRAPHS = Path(__file__).parents[2] / "examples" / "micrographs"
BIOSCOPE = Path(sys.executable).parent / "bioscope"
EFFECTIVE_WITHIN = 10.0
CHANGES_EVERY = 0.5  # seconds, since changes of one dataset are limited
MAIL_WITHIN = 30.0
RECORDED_WITHIN = 1.0


class Life:
    """One person (`ADDRESS`), the administrator (`admin`) who invites and deletes the person, and a machine in the laboratory.

    The steps are called in the order of `STEPS`. `visitors` opens a browser without cookies, `report` gets a line for each step.
    """

    def __init__(self, settings, mails, visitors, admin, folder, *, report: Callable[[str], object]):
        self.settings, self.mails, self.admin, self.folder, self.report = settings, mails, admin, folder, report
        self.visitors, self.url = visitors, settings.base_url
        self.visitor, self.earlier_visitor = visitors(), None
        self._told = 0
        self._opened = ExitStack()
        self.person: Client | None = None
        self.id = self.own = self.foreign = self.key = self.image = ""
        self._socket = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened.close()

    # ---- the steps ----
    def is_invited(self):
        self.report("The administrator invites a person by mail.")
        self.admin.post("/api/invitations", {"email": ADDRESS, "role": "researcher"})
        link = self._link_of_mail(1)
        assert link.startswith(f"{self.url}/account/invitation?token=")

    def chooses_a_password_on_the_page(self):
        self.report("The person opens the link, chooses a password, and signs in.")
        link = self._link_of_mail(1)
        self.visitor.open(link)
        assert ADDRESS in self.visitor.text, self.visitor.text
        self.visitor.send("Create the account", username="anna", first_name="Anna", last_name="Kowalska", password=FIRST_PASSWORD)
        assert "Your account is ready" in self.visitor.text, self.visitor.text
        self.visitor.open(link)
        assert "This invitation is invalid, was used already, or has expired" in self.visitor.text, self.visitor.text
        self._sign_in_on_the_page(FIRST_PASSWORD)
        assert "Anna Kowalska" in self.visitor.text, self.visitor.text
        self.person = self._opened.enter_context(Client.sign_in(self.url, ADDRESS, FIRST_PASSWORD))
        self.id = self.person.get("/api/users/me")["id"]

    def uploads_with_a_key_from_another_machine(self):
        self.report("A key that may only upload into one dataset is used on another machine.")
        self.own = self.person.create_dataset("Blood smears")
        self.foreign = self.admin.create_dataset("Biopsies")
        wanted = {"name": "microscope 3", "scopes": ["images:write"], "dataset_ids": [self.own], "days": 30}
        self.key = self.person.post("/api/keys", wanted)["key"]
        done = self._upload_elsewhere(self.own)
        assert done.returncode == 0, done.stderr
        self.image = done.stdout.split()[0]
        refused = self._upload_elsewhere(self.foreign)
        assert refused.returncode == 1
        assert "Dataset not found" in refused.stderr, refused.stderr

    def looks_at_the_image(self):
        self.report("The person and the administrator look at the image.")
        for client in (self.person, self.admin):
            address = client.get(f"/api/images/{self.image}/preview")["url"]
            assert httpx.get(address).status_code == 200

    def is_demoted_while_connected(self):
        self.report("The person becomes an administrator, connects, and becomes a viewer: the connection loses its rights.")
        self._set_role("admin")
        wait_until(lambda: self._sees_foreign_changes(connection=self._connection()), within=EFFECTIVE_WITHIN)
        self._set_role("viewer")
        wait_until(lambda: not self._sees_foreign_changes(connection=self._connection()), within=EFFECTIVE_WITHIN)
        assert self._status("GET", "/api/users/users") == 403
        refused = self._upload_elsewhere(self.own)
        assert refused.returncode == 1
        assert "analyst" in refused.stderr, refused.stderr

    def forgets_the_password_and_resets_it(self):
        self.report("The person forgets the password, and chooses a new one with the link of a mail: all sessions end.")
        self.earlier_visitor, self.visitor = self.visitor, self.visitors()
        self._sign_in_on_the_page("I do not remember it")
        assert "Please check the form" in self.visitor.text, self.visitor.text
        before = len(self.mails.received)
        self.visitor.open(f"{self.url}/forgot-password")
        self.visitor.send("Send the link", email=ADDRESS)
        assert "a mail with a link is on its way" in self.visitor.text, self.visitor.text
        link = self._link_of_mail(before + 1)
        assert link.startswith(f"{self.url}/account/reset?token=")
        self.visitor.open(link)
        self.visitor.send("Change the password", password=SECOND_PASSWORD)
        assert "Your password was changed" in self.visitor.text, self.visitor.text
        wait_until(self._connection_has_ended, within=EFFECTIVE_WITHIN)
        wait_until(lambda: self._status("GET", "/api/users/me") == 401, within=EFFECTIVE_WITHIN)
        wait_until(lambda: self._page_has_ended(self.earlier_visitor), within=EFFECTIVE_WITHIN)
        refresh = httpx.post(f"{self.url}/api/auth/refresh", json={"refresh_token": self.person.credentials.refresh_token})
        assert refresh.status_code == 401
        assert self._sign_in(FIRST_PASSWORD) == 401
        self._mail(before + 2)
        self._sign_in_on_the_page(SECOND_PASSWORD)
        assert "Anna Kowalska" in self.visitor.text, self.visitor.text

    def is_deleted(self):
        self.report("The administrator deletes the account.")
        self.admin.call("DELETE", f"/api/users/users/{self.id}")
        assert self._sign_in(SECOND_PASSWORD) == 401
        assert self._upload_elsewhere(self.own).returncode == 1
        wait_until(lambda: self._page_has_ended(self.visitor), within=EFFECTIVE_WITHIN)

    # ---- the audit ----
    def sentences(self, **query):
        """All sentences of `GET /api/audit` with these filters, oldest first."""
        found, cursor = [], {}
        while True:
            answer = self.admin.call("GET", "/api/audit", params={"order": "oldest", "limit": 20, **query, **cursor})
            found += [one["sentence"] for one in answer.json()]
            if "X-Next-Cursor" not in answer.headers:
                return found
            cursor = {"cursor": answer.headers["X-Next-Cursor"]}

    def new_sentences(self):
        """Those of everybody since the previous call. A sentence that repeats one of the last two is left out."""
        found = self.sentences()
        new, self._told = found[self._told :], len(found)
        return [sentence for number, sentence in enumerate(new) if sentence not in new[max(0, number - 2) : number]]

    def command(self, *words):
        """The JSON that a command prints on the machine of the server."""
        done = self._bioscope(*words, "--data", str(self.settings.data), "--json", environment=os.environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # ---- mails and pages ----
    def _mail(self, number):
        """The `number`th mail, counted from 1."""
        wait_until(lambda: len(self.mails.received) >= number, within=MAIL_WITHIN)
        mail = self.mails.received[number - 1]
        assert self.mails.recipients[number - 1] == [ADDRESS]
        return mail.get_body(("plain",)).get_content()

    def _link_of_mail(self, number):
        return re.search(r"http://\S+", self._mail(number))[0]

    def _sign_in_on_the_page(self, password):
        self.visitor.open(f"{self.url}/sign-in")
        self.visitor.send("Sign in", email=ADDRESS, password=password)

    def _page_has_ended(self, visitor):
        visitor.open(f"{self.url}/account")
        return "Your session has ended" in visitor.text

    # ---- requests ----
    def _status(self, method, path):
        token = self.person.credentials.access_token
        return httpx.request(method, f"{self.url}{path}", headers={"Authorization": f"Bearer {token}"}).status_code

    def _sign_in(self, password):
        return httpx.post(f"{self.url}/api/auth/login", json={"email": ADDRESS, "password": password}).status_code

    def _set_role(self, role):
        self.admin.call("PATCH", f"/api/users/users/{self.id}", json={"role": role})

    # ---- another machine ----
    def _upload_elsewhere(self, dataset):
        """`bioscope upload` of one image, in a process that knows the address of the API and the key alone."""
        images = self.folder / "images"
        if not images.exists():
            images.mkdir()
            picture = min(MICROGRAPHS.rglob("*.jpg"))
            (images / "smear-1.jpg").write_bytes(picture.read_bytes())
        known = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "BIOSCOPE_URL": self.url, "BIOSCOPE_KEY": self.key}
        return self._bioscope("upload", str(images), "--dataset", dataset, environment=known)

    def _bioscope(self, *words, environment):
        command = [str(BIOSCOPE), *words]
        return subprocess.run(command, cwd=self.folder, env=dict(environment), capture_output=True, text=True, check=False, timeout=120)

    # ---- the live connection ----
    def _connection(self):
        """The connection that the person opened, and that stays open."""
        if self._socket is None:
            self._socket = self._opened.enter_context(connect(f"ws://{urlsplit(self.url).netloc}/api/ws", compression=None))
            self._socket.send(json.dumps({"type": "auth", "token": self.person.credentials.access_token}))
            assert self._received()["type"] == "authenticated"
            self._socket.send(json.dumps({"type": "subscribe"}))
            self._received_until(lambda message: message["type"] == "caught_up")
        return self._socket

    def _received(self):
        return json.loads(self._socket.recv(timeout=30))

    def _received_until(self, condition):
        messages = [self._received()]
        while not condition(messages[-1]):
            messages.append(self._received())
        return messages

    def _sees_foreign_changes(self, *, connection):
        """Change a dataset of somebody else, then the person's own; whether the connection shows both."""
        assert connection is self._socket
        time.sleep(CHANGES_EVERY)
        for dataset in (self.foreign, self.own):
            self.admin.call("PATCH", f"/api/datasets/{dataset}", json={"description": os.urandom(8).hex()})
        received = self._received_until(lambda message: message["type"] == "event" and message["dataset"] == self.own)
        return any(message["type"] == "event" and message["dataset"] == self.foreign for message in received)

    def _connection_has_ended(self):
        try:
            self._socket.recv(timeout=0.1)
        except TimeoutError:
            return False
        except ConnectionClosed:
            return True
        return False


STEPS = (
    Life.is_invited,
    Life.chooses_a_password_on_the_page,
    Life.uploads_with_a_key_from_another_machine,
    Life.looks_at_the_image,
    Life.is_demoted_while_connected,
    Life.forgets_the_password_and_resets_it,
    Life.is_deleted,
)


@contextmanager
def installation(folder):
    """The settings of a running system that sends its mails to a server, and that server. Accounts need an invitation."""
    with SmtpRig() as mails:
        given = {"smtp_url": mails.url, "mail_from": "BioScopeAI <bioscope@example.org>", "registration": "invite"}
        settings = structs.replace(stack_settings(folder / "data"), **given)
        with SupervisedStack(settings, prepare=prepare) as running:
            yield running, mails


@contextmanager
def life(settings, mails, folder, *, in_chromium, report):
    """A life whose person uses Chromium, or a browser without scripts."""
    made_account(settings, "admin", ADMIN)
    with ExitStack() as stack:
        chromium = stack.enter_context(browser(folder)) if in_chromium else None

        def visitor():
            return ChromiumVisitor(stack.enter_context(chromium.page())) if chromium else stack.enter_context(FormVisitor())

        admin = stack.enter_context(Client.sign_in(settings.base_url, ADMIN, PASSWORD))
        yield stack.enter_context(Life(settings, mails, visitor, admin, folder, report=report))


def main():
    with (
        TemporaryDirectory(prefix="bioscope-", ignore_cleanup_errors=True) as name,
        installation(folder := Path(name)) as (settings, mails),
        life(settings, mails, folder, in_chromium=PROGRAM is not None, report=print) as story,
    ):
        story.new_sentences()
        for step in STEPS:
            step(story)
            time.sleep(RECORDED_WITHIN)
            print(*(f"    {sentence}" for sentence in story.new_sentences()), sep="\n")
        print("The command line says who looked at the image.")
        print(*(f"    {one['name']} looked {one['times']} times" for one in story.command("audit", "who", story.image)), sep="\n")


if __name__ == "__main__":
    main()
