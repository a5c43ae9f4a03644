"""A worker that lies about model packages: it adds only the version that somebody uploaded, once, and in that person's name."""

from uuid import uuid4

import msgspec
import psycopg
import pytest

from application import model_checks, models
from application.ports import Command
from domain import model, model_check, user
from domain.access import Actor, Role
from domain.errors import ConcurrencyConflict, Refused
from domain.model import ModelAliasMoved, ModelVersionAdded, Version
from domain.model_check import ModelCheckFailed, ModelCheckPassed
from domain.values import model_id, system_actor
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.adversaries.test_worker import ROOT, WORKER, lied_to, log_as
from tests.given import NOW, actor, command, register
from tests.rigs.scenario import REPORT
from tests.twins.event_store import MemoryRecorder

ADA = actor(Role.RESEARCHER)
SCHEDULER = Actor(id=system_actor("scheduler"), kind="system")
PACKAGE = "ab" * 32
CELLS = model_id("cells")


@pytest.fixture
def open_as(postgres, database):
    opened = []

    def open_as(role, **stolen):
        opened.append(log_as(postgres, database, role, **stolen))
        return opened[-1]

    yield open_as
    for log in opened:
        log.close()


@pytest.fixture
def record(open_as):
    """The log, as the processes that behave see it."""
    log = open_as("bioscope_app")
    register(ADA, log=log)
    return log


@pytest.fixture
def worker(open_as):
    """The log, as an inference process reaches it."""
    return open_as("bioscope_inference")


def takes(log, *events):
    """Whether the record takes it from a worker."""
    try:
        log.append(work(), *events)
    except (Refused, ConcurrencyConflict):
        return False
    return True


def uploaded(log, package=PACKAGE):
    return model_checks.upload(filename="cells.zip", sha256=package, size=9, command=command(ADA), log=log).id


def version(package=PACKAGE, *, number=1, weights="cd" * 32):
    about = {"labels": ("round", "flat"), "review_below": 0.6, "record": "{}", "digest": weights}
    return Version(number=number, sha256=weights, size=9, **about, package=package)


def found(weights="cd" * 32, package=PACKAGE, name="cells"):
    return model_checks.CheckedModel(name, "", version(package, weights=weights), REPORT)


def work(by=WORKER):
    return Command(id=uuid4(), actor=by, at=NOW)


def added(log, check, name="cells", package=PACKAGE, **changed):
    """The version and the alias, as a worker adds them, but for what was `changed`."""
    state = log.load(model_id(name), model.evolve)
    about = {"name": name, "description": "", "version": version(package, weights=check.hex * 2)}
    event, moved = model.add_version(model_id(name), state, **about, alias="candidate", check=check, by=ADA.id, at=NOW)
    return [msgspec.structs.replace(event, **changed), moved]


def passed(log, check, *, number=1, name="cells", **changed):
    state = log.load(check, model_check.evolve)
    event = model_check.ModelCheckPassed(
        originator_id=check,
        originator_version=state.version + 1 if state else 2,
        at=NOW,
        by=WORKER.id,
        model_id=model_id(name),
        model_name=name,
        number=number,
        report=REPORT,
    )
    return msgspec.structs.replace(event, **changed)


def failed(check, *, version=2, by=WORKER, of=(None, None)):
    about = {"originator_id": check, "originator_version": version, "at": NOW, "by": by.id}
    return ModelCheckFailed(**about, code="labels", detail="are missing", model_id=of[0], number=of[1])


# ---- what is taken -----------------------------------------------------------------------------------------------------------------
def test_a_right_answer_is_taken_once(record, worker):
    check = uploaded(record)
    assert model_checks.record_passed(check, found(), command=work(), log=worker)
    assert not model_checks.record_passed(check, found("ef" * 32), command=work(), log=worker)
    refusal = model_checks.PackageRefusal("labels", "are missing")
    assert not model_checks.record_failed(check, refusal, None, command=work(), log=worker)
    state = record.load(CELLS, model.evolve)
    assert (len(state.versions), state.aliases) == (1, {"candidate": 1})


def test_a_refusal_is_taken_once_from_a_worker_or_the_scheduler(record, worker, open_as):
    refusal = model_checks.PackageRefusal("worker_lost", "every worker was lost")
    first, second = uploaded(record), uploaded(record)
    assert model_checks.record_failed(first, refusal, None, command=work(), log=worker)
    assert model_checks.record_failed(second, refusal, None, command=work(SCHEDULER), log=open_as("bioscope_projector"))
    for check in (first, second):
        assert not model_checks.record_passed(check, found(), command=work(), log=worker)
    assert record.load(CELLS, model.evolve) is None


def test_a_known_version_and_the_test_of_a_version_need_no_new_one(record, worker):
    assert model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    assert model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    again = model_checks.request_test(name="cells", number=1, command=command(ADA), log=record).id
    assert model_checks.record_passed(again, found(), command=work(), log=worker)
    assert len(record.history(CELLS)) == 2


# ---- what nobody asked for -----------------------------------------------------------------------------------------------------------
def test_an_answer_to_what_nobody_asked_for_is_refused(worker):
    nobody = uuid4()
    assert not takes(worker, failed(nobody))
    assert not takes(worker, failed(nobody, version=1))
    assert not takes(worker, *added(worker, nobody), passed(worker, nobody))
    assert not takes(worker, *added(worker, nobody))


def test_a_version_without_a_check_is_refused(record, worker):
    check = uploaded(record)
    assert not takes(worker, *added(record, check, check_id=None))
    assert not takes(worker, *added(record, check, check_id=None), passed(record, check))


LIES = {
    "for another person": lambda log, check: [*added(log, check, by=WORKER.id), passed(log, check)],
    "of another package": lambda log, check: [*added(log, check, package="99" * 32), passed(log, check)],
    "without a package": lambda log, check: [*added(log, check, package=""), passed(log, check)],
    "without an answer": added,
    "with a refusal": lambda log, check: [*added(log, check), failed(check)],
    "with the answer to another check": lambda log, check: [*added(log, check), passed(log, uploaded(log))],
    "twice": lambda log, check: [*added(log, check), *added(log, check, name="others"), passed(log, check)],
    "in production": lambda log, check: [*_aliased(log, check, alias="production"), passed(log, check)],
    "under a name of its own": lambda log, check: [*_aliased(log, check, alias="best"), passed(log, check)],
    "under no name": lambda log, check: [*_aliased(log, check, alias=None), passed(log, check)],
    "with an alias in the name of another": lambda log, check: [*_aliased(log, check, by=WORKER.id), passed(log, check)],
    "with two answers": lambda log, check: [*added(log, check), passed(log, check), failed(check, version=3)],
    "with a digest that is empty, as those that begin in production": lambda log, check: [
        *_version(log, check, digest=""),
        passed(log, check),
    ],
    "with a digest of another length": lambda log, check: [*_version(log, check, digest="ab"), passed(log, check)],
    "with weights that are not named by a sha256": lambda log, check: [*_version(log, check, sha256="../../etc"), passed(log, check)],
    "with a sha256 in capitals": lambda log, check: [*_version(log, check, sha256="AB" * 32), passed(log, check)],
    "without labels": lambda log, check: [*_version(log, check, labels=()), passed(log, check)],
    "with more labels than results can have": lambda log, check: [
        *_version(log, check, labels=tuple(map(str, range(301)))),
        passed(log, check),
    ],
    "with a label twice": lambda log, check: [*_version(log, check, labels=("round", "round")), passed(log, check)],
    "with an empty label": lambda log, check: [*_version(log, check, labels=("round", "")), passed(log, check)],
    "with a record that is no JSON": lambda log, check: [*_version(log, check, record="model: cells"), passed(log, check)],
    "with a record that is no mapping": lambda log, check: [*_version(log, check, record="[]"), passed(log, check)],
    "with a number that is taken or skipped": lambda log, check: [*_version(log, check, number=2), passed(log, check, number=2)],
    "in the stream of another model": lambda log, check: [*added(log, check, name="others", originator_id=CELLS)[:1], passed(log, check)],
    "under the name of another model": lambda log, check: [*added(log, check, name="others"), passed(log, check, number=1, model_id=CELLS)],
    "and an answer of another number": lambda log, check: [*added(log, check), passed(log, check, number=2)],
    "and an answer of another name": lambda log, check: [*added(log, check), passed(log, check, model_name="others")],
    "after its answer": lambda log, check: [passed(log, check), *added(log, check)],
    "with its answer in another version": lambda log, check: [*added(log, check), passed(log, check, originator_version=3)],
}


def _version(log, check, **changed):
    event, moved = added(log, check)
    number = changed.get("number", moved.number)
    return [
        msgspec.structs.replace(event, version=msgspec.structs.replace(event.version, **changed)),
        msgspec.structs.replace(moved, number=number),
    ]


def _aliased(log, check, **changed):
    event, moved = added(log, check)
    return [event, msgspec.structs.replace(moved, **changed)]


@pytest.mark.parametrize("lie", LIES)
def test_a_version_that_was_not_uploaded_so_is_refused(record, worker, lie):
    check = uploaded(record)
    head = record.head()
    events = LIES[lie](record, check)
    forged_from = record.head()
    assert not takes(worker, *events)
    assert (record.head(), forged_from >= head) == (forged_from, True)
    assert takes(worker, *added(record, check), passed(record, check)), "the truth is taken"


CHANGES = {
    "a viewer": [lambda state: user.change_role(state, Role.VIEWER, by=ADA.id, at=NOW)],
    "an analyst after an administrator": [
        lambda state: user.change_role(state, Role.ADMIN, by=ADA.id, at=NOW),
        lambda state: user.change_role(state, Role.ANALYST, by=ADA.id, at=NOW),
    ],
    "suspended": [lambda state: user.change_status(state, user.Status.SUSPENDED, by=ADA.id, at=NOW)],
    "deleted": [lambda state: user.delete(state, by=WORKER.id, at=NOW)],
    "erased": [lambda state: user.erase(state, by=WORKER.id, at=NOW)],
}


def change_account(log, changes):
    for change in changes:
        log.append(command(ADA), *change(log.load(ADA.id, user.evolve)))


@pytest.mark.parametrize("account", CHANGES)
def test_no_version_is_added_for_an_account_that_may_add_none(record, worker, account):
    check = uploaded(record)
    change_account(record, CHANGES[account])
    assert not takes(worker, *added(record, check), passed(record, check))
    assert takes(worker, failed(check))


def test_a_version_is_added_for_an_account_that_may_add_some_again(record, worker):
    check = uploaded(record)
    back = [
        lambda state: user.change_role(state, Role.VIEWER, by=ADA.id, at=NOW),
        lambda state: user.change_status(state, user.Status.SUSPENDED, by=ADA.id, at=NOW),
        lambda state: user.change_role(state, Role.ADMIN, by=ADA.id, at=NOW),
        lambda state: user.change_status(state, user.Status.ACTIVE, by=ADA.id, at=NOW),
    ]
    change_account(record, back)
    assert takes(worker, *added(record, check), passed(record, check))


@pytest.mark.parametrize("account", CHANGES)
def test_an_audit_finds_a_version_for_an_account_that_could_add_none(account):
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    register(ADA, log=log)
    check = uploaded(log)
    change_account(log, CHANGES[account])
    log.append(work(), *added(log, check), passed(log, check))
    assert [found for one in log.read(0, 100) if (found := RecordAudit(log).violation_of(one))] == [
        "the person who uploaded it may add no models"
    ]


SHAPES = {
    "no mapping": "7",
    "no fields": "{}",
    "labels that are a mapping": '{"labels": {"round": 1}}',
    "labels that are a text": '{"labels": "round"}',
    "labels that are null": '{"labels": [null]}',
    "a record that is null": '{"labels": ["a"], "record": null}',
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_version_of_any_shape_is_refused_without_an_error(postgres, database, shape):
    good = {"digest": PACKAGE, "sha256": PACKAGE, "labels": ["a"], "record": "{}"}
    given = msgspec.json.decode(SHAPES[shape])
    version = good | given if isinstance(given, dict) and given else given
    with psycopg.connect(postgres.url(user="postgres", database=database)) as owner:
        assert owner.execute("select ops.check_version(%s)", (msgspec.json.encode(good).decode(),)).fetchone() == (None,)
        assert owner.execute("select ops.check_version(%s)", (msgspec.json.encode(version).decode(),)).fetchone() != (None,)


def test_an_answered_check_adds_no_other_version(record, worker):
    check = uploaded(record)
    assert takes(worker, failed(check))
    assert not takes(worker, *added(record, check), passed(record, check))
    assert not takes(worker, *added(record, check))


def test_an_answer_about_another_version_than_was_to_be_tested_is_refused(record, worker):
    model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    model_checks.record_passed(uploaded(record), found("ef" * 32), command=work(), log=worker)
    again = model_checks.request_test(name="cells", number=1, command=command(ADA), log=record).id
    assert not takes(worker, passed(record, again, number=2))
    assert not takes(worker, passed(record, again, name="others"))
    assert not takes(worker, *added(record, again), passed(record, again, number=3)), "a test adds no version"
    assert takes(worker, passed(record, again))


def test_a_worker_moves_no_alias_but_that_of_the_version_that_it_adds(record, worker):
    for weights in ("cd" * 32, "ef" * 32):
        model_checks.record_passed(uploaded(record), found(weights), command=work(), log=worker)
    state = record.load(CELLS, model.evolve)
    (back,) = model.move_alias(state, alias="candidate", number=1, by=WORKER.id, at=NOW)
    (production,) = model.move_alias(state, alias="production", number=2, by=WORKER.id, at=NOW)
    assert not takes(worker, back)
    assert not takes(worker, production)
    check = uploaded(record)
    event, moved = added(record, check)
    assert not takes(worker, event, msgspec.structs.replace(moved, number=1), passed(record, check, number=3))
    assert not takes(worker, event, moved, *_of("others"), passed(record, check, number=3))
    assert takes(worker, event, moved, passed(record, check, number=3))


@pytest.mark.parametrize(("reason", "refused"), [(None, None), ("sealed:2:forged", "a worker gives no reason for an alias")])
def test_a_worker_gives_no_reason_for_an_alias(postgres, database, reason, refused):
    moved = msgspec.json.encode({"alias": "candidate", "number": 1, "by": ADA.id, "reason": reason})
    event = msgspec.json.encode({"version": {"number": 1}, "by": ADA.id})
    rule = "select ops.check_model_answer(%s, 2, 'ModelAliasMoved', %s, %s, array['ModelVersionAdded'], %s)"
    with psycopg.connect(postgres.url(user="postgres", database=database)) as owner:
        assert owner.execute(rule, (CELLS, moved, [CELLS], [event])).fetchone() == (refused,)


def _of(name):
    """The alias of another model is moved too."""
    return [ModelAliasMoved(originator_id=model_id(name), originator_version=1, at=NOW, by=ADA.id, alias="candidate", number=1)]


def test_a_worker_neither_uploads_nor_retires_nor_promotes(record, worker, open_as):
    model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    state = record.load(CELLS, model.evolve)
    forged = [
        model_check.ModelTestRequested(
            originator_id=uuid4(), originator_version=1, at=NOW, by=WORKER.id, model_id=CELLS, model_name="cells", number=1, sha256=PACKAGE
        ),
        model.retire(state, by=WORKER.id, at=NOW),
        *model.add_promoter(state, user=WORKER.id, by=WORKER.id, at=NOW),
    ]
    for event in forged:
        assert not takes(worker, event), event
    thief = open_as("bioscope_inference", keys=ROOT)
    assert not takes(thief, model_check.upload(uuid4(), filename="x.zip", sha256=PACKAGE, size=1, by=WORKER.id, at=NOW))


def test_a_passed_check_names_a_version_that_exists(record, worker):
    check = uploaded(record)
    assert not takes(worker, passed(record, check))
    model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    assert not takes(worker, passed(record, check, number=2))
    assert not takes(worker, passed(record, check, number=0))
    assert not takes(worker, passed(record, check, name="others"))
    assert not takes(worker, passed(record, check, model_name="others"))
    assert takes(worker, passed(record, check))


def test_a_refusal_is_about_the_version_that_was_to_be_tested(record, worker):
    model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    check = uploaded(record)
    assert not takes(worker, failed(check, of=(CELLS, 1))), "an upload is of no version"
    again = model_checks.request_test(name="cells", number=1, command=command(ADA), log=record).id
    assert not takes(worker, failed(again))
    assert not takes(worker, failed(again, of=(CELLS, 2)))
    assert takes(worker, failed(again, of=(CELLS, 1)))
    assert takes(worker, failed(check))


def test_a_retired_model_gets_no_version_from_a_worker(record, worker):
    model_checks.record_passed(uploaded(record), found(), command=work(), log=worker)
    check = uploaded(record)
    event, moved = added(record, check)
    retired = model.retire(record.load(CELLS, model.evolve), by=ADA.id, at=NOW)
    record.append(command(ADA), retired)
    later = [msgspec.structs.replace(one, originator_version=one.originator_version + 1) for one in (event, moved)]
    assert not takes(worker, *later, passed(record, check, number=2))
    assert takes(worker, failed(check))


def test_the_database_and_the_domain_give_a_model_the_same_id(database, postgres):
    names = ["cells", "a", "name_with-all-0123456789", "x" * 64, "Zellen für Ärzte"]
    with psycopg.connect(postgres.url(user="postgres", database=database)) as owner:
        for name in names:
            assert owner.execute("select ops.model_stream(%s)", (name,)).fetchone() == (model_id(name),)


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_projector"])
def test_other_processes_pass_no_check(record, open_as, role):
    log, check = open_as(role, keys=ROOT), uploaded(record)
    by = SCHEDULER if role == "bioscope_projector" else ADA
    for events in ([passed(record, check)], added(record, check), [*added(record, check), passed(record, check)]):
        with pytest.raises(Refused):
            log.append(work(by), *events)
    if role == "bioscope_api":
        with pytest.raises(Refused):
            log.append(work(by), failed(check))


# ---- what got in before is found ----------------------------------------------------------------------------------------------------
OF_COMMANDS = {
    "without an answer",
    "with a refusal",
    "with the answer to another check",
    "twice",
    "in production",
    "under a name of its own",
    "with an alias in the name of another",
    "with its answer in another version",
}
"""Rules about the events of one command, which an audit does not know."""
AUDITED = [lie for lie in LIES if lie not in OF_COMMANDS]


@pytest.mark.parametrize("lie", AUDITED)
def test_an_audit_finds_a_version_that_was_not_uploaded_so(lie):
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    register(ADA, log=log)
    check = uploaded(log)
    audit = RecordAudit(log)
    assert [audit.violation_of(one) for one in log.read(0, 100)] == [None] * log.head()
    log.append(work(), *LIES[lie](log, check))
    assert any(RecordAudit(log).violation_of(one) for one in log.read(0, 100))


def test_the_use_cases_of_people_are_as_before(record, open_as):
    """The rules bind workers, and not the commands of operators."""
    about = {"name": "shipped", "description": "", "version": version("")}
    models.add_version(**about, command=command(actor(Role.ADMIN)), log=record)
    assert record.load(model_id("shipped"), model.evolve).aliases == {"production": 1}
    assert isinstance(record.decode(record.history(model_id("shipped"))[0]), ModelVersionAdded)
    models.move_alias(
        name="shipped",
        alias="stable",
        number=1,
        reason="Validated",
        command=command(actor(Role.ADMIN)),
        log=open_as("bioscope_api", keys=ROOT),
    )
    assert isinstance(passed(record, uploaded(record)), ModelCheckPassed)
