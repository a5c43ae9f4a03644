"""Starts relay, projector and inference as processes, on a database, a broker and a Redis."""

import os
import re
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import psycopg

from application import classifications, datasets, images
from application.classifications import ImageSelection
from application.ports import Command
from domain import user
from domain.access import Actor, Role
from domain.classification import RunOptions
from infrastructure.blobs.store import open_blobs
from infrastructure.embedded.child import Child, log_end, python
from infrastructure.embedded.installation import environment
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.inference.models.bundled import micrographs, register_bundled
from infrastructure.kafka.consumer_process import DEFAULT_LIMITS as CONSUMER_LIMITS
from infrastructure.security.keys import RootKey
from tests.rigs.waiting import wait_until

OPEN = ("pending", "running")


class SystemProcesses:
    """Its log and its people; its processes by name, started and ended at will. `member`: who is known to it already."""

    def __init__(self, settings, *, member=None):
        self.settings = msgspec.structs.replace(settings, log_json=True)
        root = RootKey.read(settings.root_key_path)
        self.log, self.blobs = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root), open_blobs(settings, root)
        self.reads = psycopg.connect(settings.postgres_url, autocommit=True)
        self.folder = settings.data / "logs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.children = {}
        self.ada = member or self._member()

    # ---- processes ----
    def start(self, *names, by="api.cli"):
        for name in names:
            kind = re.sub(r"-\d+$", "", name)
            variables = environment(self.settings, os.environ)
            self.children[name] = Child(python(by, kind), log=self.folder / f"{name}.log", environment=variables)

    def stop(self, *names, within=CONSUMER_LIMITS.stop_timeout_seconds):
        """By SIGTERM; the exit codes."""
        children = [self.children.pop(name) for name in names or list(self.children)]
        for child in children:
            child.ask_to_stop()
        for child in children:
            assert child.ended(within=within), f"{names} do not end"
        return [child.exit_code for child in children]

    def kill(self, name):
        self.children.pop(name).kill()

    def said(self, name):
        return log_end(self.folder / f"{name}.log", lines=40)

    def times_logged(self, name, event):
        """How many lines of its log are of that event."""
        return (self.folder / f"{name}.log").read_text().count(f'"{event}"')

    def close(self):
        for child in self.children.values():
            child.kill()
        self.reads.close()
        self.log.close()

    # ---- what people do ----
    def command(self, by=None):
        return Command(id=uuid4(), actor=by or self.ada, at=datetime.now(UTC))

    def _member(self):
        ada = Actor(id=uuid4(), role=Role.RESEARCHER)
        said = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Lab", "role": Role.RESEARCHER}
        self.log.append(self.command(ada), user.register(ada.id, **said, by=ada.id, at=datetime.now(UTC)))
        return ada

    def models(self):
        register_bundled(self.blobs, self.log)

    def dataset(self):
        return datasets.create(name="cells", description=None, command=self.command(), log=self.log)

    def picture(self, dataset, number):
        path = sorted(micrographs().glob("*/*.jpg"))[number]
        upload = self.blobs.begin()
        upload.write(path.read_bytes())
        sha256, size = upload.commit()
        about = {"media_type": "image/jpeg", "width": 360, "height": 363, "filename": path.name, "device_id": None}
        return images.upload(dataset_id=dataset, sha256=sha256, size=size, **about, command=self.command(), log=self.log).id

    def run(self, *, dataset=None, image=None, model="pbc8"):
        selection = ImageSelection(dataset_id=dataset, image_id=image)
        asked = {"selection": selection, "model_name": model, "threshold": None, "known_models": [], "options": RunOptions(fresh=True)}
        return classifications.run(**asked, command=self.command(), log=self.log).id

    # ---- what can be seen ----
    def row(self, query, *parameters):
        return self.reads.execute(query, parameters).fetchone()

    @property
    def shown(self):
        return self.row("select position from read.checkpoint")[0]

    def sources(self):
        query = "select label, value from ops.counters where name = 'projected_events'"
        return {"kafka": 0, "store": 0} | dict(self.reads.execute(query).fetchall())

    def until(self, true, *, within=30.0):
        def holds():
            if true():
                return True
            dead = [name for name, child in self.children.items() if not child.alive()]
            assert not dead, f"{dead} ended:\n" + "\n".join(map(self.said, dead))
            return False

        wait_until(holds, within=within, explain=lambda: "\n".join(self.said(name) for name in self.children))

    def until_shown(self, *, within=30.0):
        head = self.log.head()
        self.until(lambda: self.shown >= head, within=within)

    def until_counted(self):
        """The numbers of events by their source, once they are all shown and counted."""
        self.until_shown()
        self.until(lambda: sum(self.sources().values()) == self.shown)
        return self.sources()

    def until_kafka_delivers(self):
        """Steady state: what happens now comes by Kafka."""
        before = self.sources()["kafka"]

        def delivered():
            self.dataset()
            time.sleep(0.3)
            return self.sources()["kafka"] > before

        self.until(delivered, within=60)
        time.sleep(1.2)

    def until_ended(self, job):
        self.until(
            lambda: (row := self.row("select status from read.classifications where id = %s", job)) and row[0] not in OPEN, within=60
        )
        return self.row("select status, succeeded, failed from read.classifications where id = %s", job)

    def inspected(self, dataset):
        return self.row("select count(*) from read.images where dataset_id = %s and accepted", dataset)[0]


@contextmanager
def busy(processes, *, pause=0.01):
    """Datasets are made all the time."""
    ending = threading.Event()

    def work():
        while not ending.wait(pause):
            processes.dataset()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ending.set()
        worker.join()
