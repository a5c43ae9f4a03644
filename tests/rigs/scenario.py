"""Events of a working laboratory, recorded through the real use cases. `follow` applies them to the read models."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec

from application import classifications, datasets, devices, images, model_checks, models, teams
from application.classifications import ImageSelection
from application.jobs.chunk_results import JobPlans
from application.ports import Secret
from domain import api_key, classification, image, model, model_check, policy, service_account, session, user
from domain.access import Actor, Grant, Role, Scope
from domain.api_key import OwnerKind
from domain.classification import ImageFailure, ImageResult, PlannedImage, RunOptions, Verdict
from domain.events import new_stream
from domain.invitation import UserInvited
from domain.policy import PolicyScope
from domain.registration import RegistrationRequested
from domain.user import Status
from domain.values import model_id, result_id, system_actor
from infrastructure.images.reader_version import READER_VERSION
from projections.engine.checkpoints import Checkpoint
from tests.given import NOW, command, provenance
from tests.twins.last_seen import MemoryLastSeen

SYSTEM = Actor(id=system_actor("tests"), kind="system")
LABELS = ("round", "flat")
SHA256 = "ab" * 32
INSPECTION = image.Inspection(
    width=95, height=94, bands=3, dtype="uint8", pages=1, axes="YXC", pixel_size_um=0.25, reader=READER_VERSION, warnings=()
)

REPORT = model_check.CheckReport(
    environment=model_check.Environment(cpu="x86_64", runtime="onnxruntime 1.30", provider="CPUExecutionProvider"),
    largest_difference=0.00001,
    tolerance=0.001,
    load_seconds=0.2,
    run_seconds=0.01,
    memory_bytes=10_000_000,
    nodes=40,
    opset=17,
    files=5,
    size=1000,
)


class Scenario:
    def __init__(self, log, projector):
        self.log, self.projector = log, projector
        self.now = NOW

    def record(self, *events):
        self.log.append(self.command(), *events)

    # ---- use cases ----
    def user(self, role=Role.RESEARCHER, name="ada"):
        member = uuid4()
        address = f"{name}.{member}@example.org"
        event = user.register(member, email=address, username=name, first_name=name, last_name="Lab", role=role, by=member, at=self.now)
        self.log.append(self.command(), event)
        return Actor(id=member, role=role)

    def erase(self, member):
        state = self.log.load(member.id, user.evolve)
        forgotten = Secret(kind="key", owner=member.id, value=None)
        self.log.append(self.command(), *user.erase(state, by=SYSTEM.id, at=self.now), secrets=[forgotten])

    def session(self, member):
        started = session.start(uuid4(), user=member.id, address="192.0.2.1", agent="Mozilla", at=self.now)
        self.log.append(self.command(), started)
        return started.originator_id

    def dataset(self, owner, name="cells"):
        return datasets.create(name=name, description="from the microscope", command=self.command(owner), log=self.log).id

    def share(self, owner, dataset, other, grant):
        datasets.share(dataset, user_id=other.id, grant=grant, command=self.command(owner), log=self.log)

    def team(self, owner, *members, name="Haematology"):
        made = teams.create(name=name, command=self.command(owner), log=self.log).id
        for member in members:
            teams.add_member(made, user_id=member.id, command=self.command(owner), log=self.log)
        return made

    def share_with_team(self, owner, dataset, team_id, grant):
        datasets.share_with_team(dataset, team_id=team_id, grant=grant, command=self.command(owner), log=self.log)

    def key(self, owner, *, datasets=None, scopes=(Scope.IMAGES_READ,)):
        """A key of a user."""
        about = {"owner": owner.id, "owner_kind": OwnerKind.USER, "name": "script", "scopes": scopes, "datasets": datasets}
        issued = api_key.issue(uuid4(), **about, secret_hash=bytes(32), by=owner.id, at=self.now)
        self.record(issued)
        return issued.originator_id

    def image(self, owner, dataset, filename="cell.png", *, device=None, sha256=SHA256, path=None):
        return images.upload(
            dataset_id=dataset,
            device_id=device,
            filename=filename,
            sha256=sha256,
            size=1000,
            media_type="image/png",
            width=96,
            height=96,
            path=path,
            command=self.command(owner),
            log=self.log,
        ).id

    def accept(self, image_id, **found):
        about = msgspec.structs.asdict(INSPECTION) | found
        self.change(image_id, image, lambda it: image.accept(it, image.Inspection(**about), by=SYSTEM.id, at=self.now))

    def reject(self, image_id, reason="damaged_image"):
        self.change(image_id, image, lambda it: image.reject(it, reason=reason, detail="It is torn.", by=SYSTEM.id, at=self.now))

    def reinspect(self, image_id, *, outdated=(), **changed):
        """A newer reader finds the same in every image, but for what `changed`; `outdated` are results."""
        found = msgspec.structs.replace(INSPECTION, **{"reader": INSPECTION.reader + 1} | changed)
        about = {"outdated": outdated, "by": SYSTEM.id, "at": self.now}
        self.change(image_id, image, lambda it: image.reinspect(it, found, **about))

    def delete_image(self, owner, image_id):
        images.delete(image_id, command=self.command(owner), log=self.log)

    def delete_dataset(self, owner, dataset):
        datasets.delete(dataset, command=self.command(owner), log=self.log)

    def device(self, admin, hostname="scope"):
        return devices.register(
            name="Scope", hostname=hostname, location="Room 1", firmware_version="1.0", command=self.command(admin), log=self.log
        ).id

    def model(self, name="shapes", *, sha256=SHA256, package="", record="{}"):
        """A model, or with another `sha256` its next version, which is the candidate."""
        version = model.Version(number=1, sha256=sha256, size=10, labels=LABELS, review_below=0.6, record=record, package=package)
        about = {"name": name, "description": "", "version": version, "by": SYSTEM.id, "at": self.now}
        self.log.append(self.command(), *model.add_version(model_id(name), self.log.load(model_id(name), model.evolve), **about))

    def external(self, owner, name="vesicles", *, review_below=0.6, production=True):
        """An external classifier is declared; the id of its model."""
        about = {"name": name, "description": "", "labels": LABELS, "label_texts": {}, "review_below": review_below}
        done = models.add_external(**about, command=self.command(owner), log=self.log)
        if production:
            number = max(self.log.load(done.id, model.evolve).numbers)
            models.move_alias(name=name, alias="production", number=number, command=self.command(), log=self.log)
        return done.id

    def package(self, owner, sha256=SHA256, filename="shapes.zip"):
        """A model package is uploaded, and its check awaited."""
        return model_checks.upload(filename=filename, sha256=sha256, size=1000, command=self.command(owner), log=self.log).id

    def test_model(self, owner, number, name="shapes"):
        return model_checks.request_test(name=name, number=number, command=self.command(owner), log=self.log).id

    def pass_check(self, check, *, name="shapes", weights=SHA256):
        """The package `package` of the check gives a version with the weights `weights`, as a worker records it."""
        package = self.log.load(check, model_check.evolve).sha256
        version = model.Version(
            number=1, sha256=weights, size=10, labels=LABELS, review_below=0.6, record="{}", digest=weights, package=package
        )
        found = model_checks.CheckedModel(name, "", version, REPORT)
        assert model_checks.record_passed(check, found, command=self.command(), log=self.log)

    def fail_check(self, check, code="manifest_field"):
        refusal = model_checks.PackageRefusal(code, "is no number", "rdf.yaml", "inputs[0]")
        assert model_checks.record_failed(check, refusal, None, command=self.command(), log=self.log)

    def job(
        self, owner, *, dataset=None, image=None, images=None, model="shapes", planes=None, threshold=None, where=None, path=None, **options
    ):
        """`images` is a list, `where` and `path` are the filter of a dataset."""
        selection = ImageSelection(dataset_id=dataset, image_id=image, image_ids=images, filter=where, path=path)
        asked = {"selection": selection, "model_name": model, "threshold": threshold, "known_models": [model], "planes": planes}
        return classifications.run(**asked, options=RunOptions(**options), command=self.command(owner), log=self.log).id

    def retry(self, owner, job):
        return classifications.retry(job, command=self.command(owner), log=self.log).id

    def plan(self, job, covered, *, more=False):
        planned = [PlannedImage(one, self.log.load(one, image.evolve).sha256) for one in covered]
        self.change(job, classification, lambda it: classification.plan(it, planned, more=more, by=SYSTEM.id, at=self.now))

    def judge(self, job, number, results=(), failures=(), *, confidence=0.9, value=None, label="round", verdict=Verdict.CLEAR):
        """A chunk's answer: `results` and `failures` are image ids."""
        chunk = JobPlans(self.log).chunk(job, number)
        sha256 = {one.id: one.sha256 for one in chunk.images} if chunk else {}
        about = {"label": label, "confidence": confidence, "verdict": verdict, "value": value}
        scores = (confidence, 1 - confidence) if label == LABELS[0] else (1 - confidence, confidence)
        seen = tuple(ImageResult(image_id=one, sha256=sha256.get(one, SHA256), **about, scores=scores) for one in results)
        failed = tuple(ImageFailure(image_id=one, reason="damaged_image", detail="It is torn.") for one in failures)
        answer = {"labels": LABELS, "results": seen, "failures": failed}
        answer |= {"plan": chunk and chunk.plan, "by": SYSTEM.id, "at": self.now}
        self.change(
            job, classification, lambda it: classification.record_chunk(it, number, **answer, provenance=provenance(it.model_sha256))
        )

    def cancel(self, owner, job):
        classifications.cancel(job, command=self.command(owner), log=self.log)

    def delete_job(self, owner, job):
        classifications.delete(job, command=self.command(owner), log=self.log)

    # ---- log and read models ----
    def policy(self, owner, target, *, scope=PolicyScope.DATASET, dataset=None, rules=None):
        about = {"scope": scope, "target": target, "dataset": dataset or target, "by": owner.id, "at": self.now}
        known = self.log.load(policy.policy_id(scope, target), policy.evolve)
        chosen = rules or policy.PolicyRules(review_below=0.6)
        self.log.append(self.command(owner), *policy.set_policy(known, rules=chosen, reason="too many were missed", **about))

    def command(self, by=SYSTEM):
        return command(by, at=self.now)

    def change(self, stream: UUID, noun, decide):
        events = decide(self.log.load(stream, noun.evolve))
        self.log.append(self.command(), *(events if isinstance(events, list) else [events]))

    def later(self, **passed):
        self.now += timedelta(**passed)

    def follow(self, *, batch=500, projector=None):
        """Bring the read models to the head of the log, `batch` events a transaction."""
        projector = projector or self.projector
        at = projector.checkpoint().position
        while events := self.log.read(at, batch):
            at = events[-1].position
            projector.apply(events, Checkpoint(at))
        return at


class FullHistory(NamedTuple):
    ada: Actor
    bob: Actor
    eve: Actor
    admin: Actor
    cells: UUID
    gone: UUID
    images: list[UUID]
    whole: UUID
    single: UUID
    deleted: UUID
    drowned: UUID
    scope: UUID


def record_full_history(scenario, *, count=12, chunk=5):
    """Events of nearly every type, of several users, images and jobs."""
    ada, bob = scenario.user(name="ada"), scenario.user(Role.ANALYST, name="bob")
    eve, admin = scenario.user(Role.VIEWER, name="eve"), scenario.user(Role.ADMIN, name="admin")
    scenario.model()
    scenario.model()
    scenario.session(ada)
    passed, failed, _ = (scenario.package(ada) for _ in range(3))
    scenario.pass_check(passed)
    scenario.fail_check(failed)
    scope = scenario.device(admin)
    devices.report(scope, online=True, command=scenario.command(admin), log=scenario.log, last_seen=MemoryLastSeen())
    cells, gone = scenario.dataset(ada, "cells"), scenario.dataset(ada, "gone")
    scenario.share(ada, cells, bob, Grant.ANALYST)
    scenario.share(ada, cells, eve, Grant.VIEWER)
    found = [scenario.image(ada, cells, f"cell {number}.png", device=scope) for number in range(count)]
    lost = scenario.image(ada, gone, "lost.png")
    for one in found[:-2]:
        scenario.accept(one)
    scenario.reject(found[-1])
    images.describe(found[0], filename="renamed.png", analyzed=True, command=scenario.command(ada), log=scenario.log)
    scenario.later(minutes=5)
    whole = scenario.job(ada, dataset=cells)
    scenario.plan(whole, found[:5], more=True)
    scenario.plan(whole, found[5:-1])
    scenario.judge(whole, 0, found[:5], confidence=0.75)
    scenario.judge(whole, 1, found[5:-2], found[-2:-1])
    scenario.change(
        whole, classification, lambda it: classification.complete(it, succeeded=count - 2, failed=1, by=SYSTEM.id, at=scenario.now)
    )
    single, cancelled = scenario.job(bob, image=found[2]), scenario.job(ada, dataset=cells)
    scenario.judge(single, 0, [found[2]], confidence=0.5)
    scenario.cancel(ada, cancelled)
    scenario.policy(ada, cells)
    deleted, drowned = scenario.job(ada, image=found[4]), scenario.job(ada, image=lost)
    scenario.judge(deleted, 0, [found[4]])
    scenario.delete_job(ada, deleted)
    scenario.reinspect(found[0], outdated=[result_id(whole, found[0])])
    scenario.judge(drowned, 0, [lost])
    late = scenario.job(ada, image=found[3])
    scenario.delete_image(ada, found[3])
    scenario.judge(late, 0, [found[3]])
    scenario.delete_dataset(ada, gone)
    datasets.withdraw(cells, user_id=eve.id, command=scenario.command(ada), log=scenario.log)
    scenario.change(eve.id, user, lambda it: user.change_status(it, Status.SUSPENDED, by=admin.id, at=scenario.now))
    scenario.change(bob.id, user, lambda it: user.change_profile(it, {"phone": "123"}, by=bob.id, at=scenario.now))
    scenario.erase(bob)
    record_accounts(scenario, ada, admin, cells)
    return FullHistory(ada, bob, eve, admin, cells, gone, found, whole, single, deleted, drowned, scope)


def record_accounts(scenario, ada, admin, cells):
    """A registration and an invitation that are open, a service account, a key, and a team with a grant."""
    names = {"username": "grace", "first_name": "Grace", "last_name": "Lab"}
    asked = {"email": "grace@example.org", "password_commitment": "", "request_id": uuid4()}
    scenario.record(RegistrationRequested(**new_stream(uuid4(), by=SYSTEM.id, at=scenario.now), **names, **asked))
    invited = {"email": "alan@example.org", "role": Role.ANALYST, "request_id": uuid4()}
    scenario.record(UserInvited(**new_stream(uuid4(), by=admin.id, at=scenario.now), **invited))
    scenario.record(service_account.create(uuid4(), name="microscope", by=admin.id, at=scenario.now))
    scenario.share_with_team(ada, cells, scenario.team(ada, admin), Grant.VIEWER)
    scenario.key(ada, datasets={cells})
