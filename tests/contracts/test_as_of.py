"""States and lists at an earlier position, on Postgres and on the in-memory twin, whatever the clocks of the processes say."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import datasets
from application.history import event_feed, lists_as_of
from application.history.as_of import position_of
from application.history.audit import state_of, trail
from domain import dataset
from domain.access import Grant, Role
from domain.errors import Invalid, NotFound
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from tests.contracts.conftest import ROOT
from tests.given import NOW, actor, command
from tests.rigs.scenario import Scenario
from tests.twins.event_store import MemoryRecorder

ADA = actor(Role.RESEARCHER)


def described(log, about, name, *, at=NOW):
    datasets.describe(about, name=name, command=command(ADA, at=at), log=log)


def created(log, *, at=NOW):
    return datasets.create(name="version 1", description=None, command=command(ADA, at=at), log=log).id


def recorded_at(log, position):
    return log.read(position - 1, 1)[0].recorded_at


def at_time(log, moment):
    return position_of(moment.isoformat(), log=log)


def test_processes_whose_clocks_differ_never_show_a_state_that_never_was(log):
    slow, fast = NOW, NOW + timedelta(seconds=5)
    about = created(log, at=slow)
    described(log, about, "version 2", at=fast)
    described(log, about, "version 3", at=slow)
    shown = [state_of(about, until=at_time(log, recorded_at(log, position)), log=log) for position in (1, 2, 3)]
    assert [(state.version, state.name) for state in shown] == [(1, "version 1"), (2, "version 2"), (3, "version 3")]


def test_every_moment_is_the_last_position_that_was_recorded_by_then(log):
    for _ in range(23):
        created(log)
    times = [recorded_at(log, position) for position in range(1, 24)]
    just = timedelta(microseconds=1)
    for moment in {*times, *(time - just for time in times), *(time + just for time in times)}:
        assert log.position_at(moment) == sum(time <= moment for time in times)
    assert at_time(log, datetime.now(UTC)) == log.head() == position_of(None, log=log)


def test_moments_that_mean_nothing_are_refused_with_a_sentence(log):
    created(log)
    wrong = {
        "yesterday": "must be a time with a time zone",
        "2026-03-01T12:00:00": "has no time zone",
        "2026-03-01T12:00:00 01:00": "%2B",
        (datetime.now(UTC) + timedelta(hours=1)).isoformat(): "in the future",
        "-1": "must be a time with a time zone",
        "0": "must be a position from 1 on",
        "2": "beyond the end of the log, which is at position 1",
        "9" * 40: "beyond the end of the log",
        "\u0664": "must be a time",
    }
    for as_of, said in wrong.items():
        with pytest.raises(Invalid, match=said) as raised:
            position_of(as_of, log=log)
        assert raised.value.errors[0]["loc"] == ["query", "as_of"]


def test_before_the_first_event_there_was_nothing(log):
    with pytest.raises(NotFound, match="Nothing had been recorded"):
        position_of("2001-01-01T00:00:00Z", log=log)
    about = created(log)
    with pytest.raises(NotFound, match="Nothing had been recorded"):
        position_of("2001-01-01T00:00:00Z", log=log)
    with pytest.raises(NotFound):
        state_of(about, until=0, log=log)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 5)), min_size=1, max_size=12), st.data())
def test_a_state_at_a_position_is_that_of_the_log_that_ends_there(changes, data):
    log, shorter = (RecorderEventStore(MemoryRecorder(ROOT), ROOT) for _ in range(2))
    streams = [uuid4() for _ in range(3)]
    until = data.draw(st.integers(1, len(changes)))
    for number, (place, seconds) in enumerate(changes):
        for one in (log, shorter) if number < until else (log,):
            state, at = one.load(streams[place], dataset.evolve), NOW + timedelta(seconds=seconds)
            first = dataset.create(streams[place], name=f"name {number}", description=None, by=ADA.id, at=at)
            one.append(command(ADA), *(dataset.describe(state, name=f"name {number}", by=ADA.id, at=at) if state else [first]))
    for stream in streams:
        assert log.load(stream, dataset.evolve, until=until) == shorter.load(stream, dataset.evolve)


def test_a_dataset_is_shown_with_the_images_and_results_that_it_held_then(log):
    scenario = Scenario(log, None)
    ada = scenario.user()
    cells = scenario.dataset(ada)
    first, second = scenario.image(ada, cells, "a.png"), scenario.image(ada, cells, "b.png")
    for one in (first, second):
        scenario.accept(one)
    scenario.model()
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, [first, second])
    before = log.head()
    scenario.judge(job, 0, [first, second])
    judged = log.head()
    scenario.reinspect(first, outdated=[lists_as_of.result_id(job, first)])
    again = log.head()
    scenario.delete_image(ada, second)
    gone = log.head()
    scenario.delete_job(ada, job)

    def held(until):
        return [one.filename for one in lists_as_of.images([first, second], until=until, log=log)]

    def known(about, until):
        return [(one.image_id, one.label, one.outdated) for one in lists_as_of.results([judged], about, until=until, log=log)]

    assert [held(until) for until in (again, gone)] == [["a.png", "b.png"], ["a.png"]]
    assert known(job, judged) == [(first, "round", False), (second, "round", False)]
    assert known(first, again) == [(first, "round", True)]
    assert known(job, gone) == [(first, "round", True)]
    assert known(job, log.head()) == []
    lists_as_of.require_image_or_job(job, until=before, log=log)
    for about, until in ((second, gone), (job, log.head()), (first, 1), (cells, again)):
        with pytest.raises(NotFound):
            lists_as_of.require_image_or_job(about, until=until, log=log)
    scenario.delete_dataset(ada, cells)
    lists_as_of.require_dataset(cells, until=gone, log=log)
    for until in (1, log.head()):
        with pytest.raises(NotFound):
            lists_as_of.require_dataset(cells, until=until, log=log)
    assert known(first, log.head()) == []


# ---- how much is asked of the database ---------------------------------------------------------------------------------------------
class Counting(PostgresRecorder):
    """Counts the statements that it sends."""

    statements = 0

    def _rows(self, query, arguments):
        self.statements += 1
        return super()._rows(query, arguments)


@pytest.fixture
def counted(app_url):
    log = RecorderEventStore(Counting(app_url, ROOT), ROOT)
    yield log
    log.close()


def statements(url, ask):
    """Of a process that has asked nothing before."""
    log = RecorderEventStore(Counting(url, ROOT), ROOT)
    try:
        ask(log)
        return log.recorder.statements
    finally:
        log.close()


def test_a_page_of_the_trail_costs_as_many_statements_however_long_it_is(counted, app_url):
    scenario = Scenario(counted, None)
    people = [scenario.user(name=f"user{number}") for number in range(8)]
    cells = scenario.dataset(people[0])
    for other in people[1:]:
        scenario.share(people[0], cells, other, Grant.EDITOR)
    others = []
    for number in range(60):
        scenario.image(people[number % 8], cells, f"{number}.png")
        others.append(counted.head())
    costs = {
        maximum: statements(app_url, lambda log, maximum=maximum: trail(cells, others=others, log=log, maximum=maximum))
        for maximum in (2, 10, 61)
    }
    assert set(costs.values()) == {4}


def test_a_page_of_the_feed_costs_as_many_statements_however_long_it_is(counted, app_url):
    scenario = Scenario(counted, None)
    for number in range(120):
        scenario.user(name=f"user{number}")
    admin = actor(Role.ADMIN)

    def cost(limit, *, sealed):
        return statements(app_url, lambda log: event_feed.after(0, limit=limit, sealed=sealed, actor=admin, log=log))

    assert [cost(limit, sealed=True) for limit in (1, 10, 120)] == [1, 1, 1]
    assert [cost(limit, sealed=False) for limit in (1, 10, 120)] == [2, 2, 2]
