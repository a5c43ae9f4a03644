"""Relay, projector and bridge as processes, with a model whose classifier is a program outside of the system."""

import asyncio
import hashlib
from types import MappingProxyType
from uuid import uuid4

import msgspec

from application import models
from domain import image
from domain.access import Actor, Role
from infrastructure.embedded.broker import Broker
from infrastructure.kafka.topics import all_topics, create_topics
from tests.kafka.system_processes import OPEN, SystemProcesses
from tests.rigs import external_classifier
from tests.rigs.scenario import INSPECTION
from tests.system.conftest import made_account

PROCESSES = ("relay", "projector", "inference-bridge")
LABELS = ("round", "flat")
MODEL = "cells@candidate"
ADDRESS = "ada@example.org"
IMAGES_IN_COMMAND = 100


class ExternalSystem(SystemProcesses):
    """`classifier`: how it behaves. It is started last, since it reads only what comes after its start."""

    def __init__(self, settings, **classifier):
        super().__init__(settings)
        self._behaviour = {"labels": LABELS} | classifier
        about = {"name": "cells", "description": "", "labels": LABELS, "label_texts": {}, "review_below": 0.5}
        models.add_external(**about, command=self.command(), log=self.log)

    def _member(self):
        made_account(self.settings, "researcher", ADDRESS)
        return Actor(id=self.log.claimed("email", ADDRESS), role=Role.RESEARCHER)

    def start_all(self):
        asyncio.run(create_topics(self.settings.kafka_url, all_topics(self.settings)))
        self.start(*PROCESSES)
        self.start_classifier()

    def start_classifier(self):
        log = self.folder / "classifier.log"
        self.children["classifier"] = external_classifier.started(self.settings.kafka_url, log=log, **self._behaviour)

    def start_dead_ones(self):
        for name, child in list(self.children.items()):
            if not child.alive():
                self.start_classifier() if name == "classifier" else self.start(name)

    def upload(self, dataset, number):
        """Images without files, inspected already: the classifier does not download them."""
        made = [uuid4() for _ in range(number)]
        for start in range(0, number, IMAGES_IN_COMMAND):
            command = self.command()
            events = [one for image_id in made[start : start + IMAGES_IN_COMMAND] for one in _accepted(image_id, dataset, command)]
            self.log.append(command, *events)
        return made

    # ---- what can be seen ----
    def is_open(self, job):
        row = self.row("select status from read.classifications where id = %s", job)
        return row is None or row[0] in OPEN

    def answered(self):
        """Images that were ever answered, of jobs that have not ended."""
        return self.row("select count(*) from ops.external_answers where answered_at is not null")[0]

    def outcomes(self, job):
        """What the log says of each image of a job: each label and reason, however often."""
        found = {}
        for event in self._chunks(job):
            for one in event.results:
                found.setdefault(one.image_id, []).append(one.label)
            for one in event.failures:
                found.setdefault(one.image_id, []).append(one.reason)
        return found

    def _chunks(self, job):
        position = 0
        while batch := self.log.read(position, 1000):
            position = batch[-1].position
            for recorded in batch:
                if recorded.type == "ChunkJudged" and (event := self.log.decode(recorded)).job_id == job:
                    yield event


def _accepted(image_id, dataset, command):
    made = {"by": command.actor.id, "at": command.at}
    about = {"filename": "a.jpg", "size": 1, "media_type": "image/jpeg", "width": 95, "height": 94, "device": None, "dataset": dataset}
    uploaded = image.upload(image_id, sha256=hashlib.sha256(image_id.bytes).hexdigest(), **about, **made)
    return [uploaded, *image.accept(image.evolve(None, uploaded), INSPECTION, **made)]


class EmbeddedBroker:
    """The embedded broker, which is empty and elsewhere after each start: all its clients are started again, as the supervisor does."""

    settings = MappingProxyType({"kafka_groups": False, "kafka_fetch_wait": 0.003})

    def __init__(self, folder):
        self._broker = Broker(folder)
        self._broker.__enter__()

    @property
    def url(self):
        return self._broker.url

    def kill(self, system):
        for name in list(system.children):
            system.kill(name)
        self._broker.stop()
        self._broker.__enter__()
        system.settings = msgspec.structs.replace(system.settings, kafka_url=self.url)
        system.start_all()

    def close(self):
        self._broker.__exit__()


class ApacheKafka:
    """A node that keeps address and log."""

    settings = MappingProxyType({"kafka_groups": True, "kafka_fetch_wait": 0.5})

    def __init__(self, node):
        self._node = node
        node.start()

    @property
    def url(self):
        return self._node.url

    def kill(self, _system):
        self._node.kill()
        self._node.start()

    def close(self):
        self._node.stop()
