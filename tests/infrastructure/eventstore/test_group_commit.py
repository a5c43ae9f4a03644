"""Group commit: commands in one transaction are answered as if they were executed one after the other."""

import os
from itertools import pairwise
from uuid import uuid4, uuid5

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.history.hash_chain import link
from application.ports import Command, StreamPrecondition, UniqueClaim
from domain.access import Actor
from domain.classification import ENDING
from domain.values import system_actor
from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.eventstore.group_commit import Append, Columns, GroupCommit, PendingAppend, PendingResult
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import RootKey
from tests.given import NOW

ROOT = RootKey(os.urandom(32))
ACTOR = Actor(id=system_actor("tests"), kind="system")

few = st.integers(0, 3)
asked = st.fixed_dictionaries(
    {
        "id": st.integers(0, 7),
        "digest": st.sampled_from([b"one", b"two"]),
        "events": st.dictionaries(few, st.integers(1, 3), min_size=1, max_size=3).map(lambda versions: list(versions.items())),
        "guard": st.none() | few,
        "claim": st.none() | few,
    }
)


def pending(plan, world):
    """What the plan asks for, in a world of its own names."""

    def name(kind, number):
        return uuid5(world, f"{kind} {number}")

    def event(stream, version):
        return EncodedEvent(name("stream", stream), version, "ClassificationCancelled", 1, uuid4(), b"{}")

    command = Command(id=name("command", plan["id"]), actor=ACTOR, at=NOW, digest=plan["digest"])
    guards = [] if plan["guard"] is None else [StreamPrecondition(stream=name("stream", plan["guard"]), closed_by=ENDING)]
    claims = [] if plan["claim"] is None else [UniqueClaim(scope=str(world), value=str(plan["claim"]), stream=name("stream", plan["id"]))]
    append = Append(command=command, guards=guards, claims=claims)
    return PendingAppend(append, [event(stream, version) for stream, version in plan["events"]], PendingResult())


def outcomes(log, *batches):
    """What is said of each command, with positions counted from where the log stood."""
    writer, connection = log
    (head,) = connection.execute("select position from es.head").fetchone()
    answers = [outcome for batch in batches for outcome in writer._call(Columns(ClaimDigests(ROOT), batch).arguments())]
    return [(answer.outcome, answer.position and answer.position - head) for answer in answers]


def written(log, after, world):
    """The streams and versions of what was appended after a position, once its chain was verified."""
    _, connection = log
    rows = connection.execute(
        f"select {EVENT_COLUMNS} from es.events where notification_id >= %s order by 1", (after,), binary=True
    ).fetchall()
    events = list(map(recorded_from, rows))
    assert [event.position for event in events] == list(range(max(after, 1), max(after, 1) + len(events)))
    assert all(later.hash == link(earlier.hash, later) for earlier, later in pairwise(events))
    numbers = {uuid5(world, f"stream {number}"): number for number in range(4)}
    return [(numbers[event.stream], event.version) for event in events if event.position > after]


@pytest.fixture
def log(app_url):
    writer = GroupCommit(app_url, ROOT)
    with psycopg.connect(app_url, autocommit=True) as connection:
        yield writer, connection
    writer.close()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(asked, min_size=1, max_size=8))
def test_a_batch_is_answered_like_its_commands_one_by_one(plans, log):
    together, apart = uuid4(), uuid4()
    at_once = outcomes(log, [pending(plan, together) for plan in plans])
    at_once_written = written(log, newest(log) - appended(at_once, plans), together)
    in_turn = outcomes(log, *([pending(plan, apart)] for plan in plans))
    assert at_once == in_turn
    assert at_once_written == written(log, newest(log) - appended(in_turn, plans), apart)


def newest(log):
    return log[1].execute("select position from es.head").fetchone()[0]


def appended(answers, plans):
    return sum(len(plan["events"]) for (outcome, _), plan in zip(answers, plans, strict=True) if outcome == "appended")


def test_all_ways_to_end_occur(log):
    """Of the property above: that it is about something."""
    world = uuid4()
    plan = {"id": 0, "digest": b"one", "events": [(0, 1)], "guard": None, "claim": 1}
    plans = [
        plan,
        plan,
        plan | {"digest": b"two"},
        plan | {"id": 1, "events": [(0, 2)], "claim": 1},
        plan | {"id": 2, "events": [(0, 3)], "claim": None},
        plan | {"id": 3, "events": [(1, 1)], "guard": 3, "claim": None},
        plan | {"id": 4, "events": [(0, 2)], "guard": 0, "claim": None},
        plan | {"id": 5, "events": [(0, 2), (2, 1)], "guard": None, "claim": None},
    ]
    answers = [outcome for outcome, _ in outcomes(log, [pending(one, world) for one in plans])]
    assert answers == ["appended", "replayed", "reused", "taken", "conflict", "missing", "closed", "appended"]
