"""The event feed: who may follow it, in which pages, and what is in clear."""

import base64

import msgspec
import pytest

from application.history import event_feed
from application.history.event_feed import MAX_EVENTS, SignedHead
from domain.access import Actor, Role, Scope
from domain.errors import Forbidden
from domain.events import SEALED_PREFIX
from tests.given import NOW, actor
from tests.older_release import without
from tests.rigs.scenario import Scenario

ADMIN = actor(Role.ADMIN)
SERVICE = Actor(id=ADMIN.id, kind="service", scopes=frozenset({Scope.EVENTS_READ}))


@pytest.fixture
def recorded(log):
    """Three events: a user, a dataset and an image."""
    scenario = Scenario(log, None)
    ada = scenario.user(name="ada")
    scenario.image(ada, scenario.dataset(ada))
    return log.read(0, 10)


def page(log, position=0, *, limit=100, actor=ADMIN, **how):
    return event_feed.after(position, limit=limit, actor=actor, log=log, **how)


def test_a_page_has_the_events_after_a_position_with_their_metadata(log, recorded):
    first, *others = page(log).events
    assert [one.position for one in (first, *others)] == [1, 2, 3]
    assert (first.id, first.type, first.stream, first.version) == (recorded[0].event_id, "UserRegistered", recorded[0].stream, 1)
    assert (first.hash, first.time) == (recorded[0].hash.hex(), recorded[0].recorded_at)
    assert first.actor["kind"] == "system"
    assert page(log, 1).events == others


def test_pages_follow_each_other_without_a_gap(log, recorded):
    seen, position = [], 0
    while (found := page(log, position, limit=2)).events:
        seen += [one.position for one in found.events]
        position = found.next
    assert seen == [1, 2, 3]
    assert page(log, 3).next == 3


def test_a_page_is_bounded_by_bytes_but_has_one_event(log, recorded):
    assert [one.position for one in page(log, max_bytes=1).events] == [1]


@pytest.mark.parametrize(("limit", "count"), [(0, 1), (-5, 1), (10 * MAX_EVENTS, 3)])
def test_a_limit_is_brought_into_its_range(log, recorded, limit, count):
    assert len(page(log, limit=limit).events) == count


def test_only_an_administrator_who_asks_gets_private_fields_in_clear(log, recorded):
    (user, *_) = page(log).events
    assert user.data["username"] == "ada"
    for sealed in (page(log, sealed=True), page(log, actor=SERVICE)):
        data = msgspec.json.decode(sealed.events[0].data)
        assert data["username"].startswith(SEALED_PREFIX)


def test_an_event_of_a_newer_release_is_shown_sealed(log, recorded):
    with without("UserRegistered"):
        (user, *_) = page(log).events
    assert msgspec.json.decode(user.data)["username"].startswith(SEALED_PREFIX)


@pytest.mark.parametrize("stranger", [actor(), actor(Role.VIEWER), Actor(id=ADMIN.id, kind="service", scopes=frozenset({"images:read"}))])
def test_nobody_else_may_follow(log, recorded, stranger):
    with pytest.raises(Forbidden):
        page(log, actor=stranger)


class SignedHeads:
    """A query database that holds these heads."""

    heads = tuple(SignedHead(position=position, hash="ab", signed_at=NOW, signature="sig") for position in (1, 3))

    async def rows(self, query, parameters, *, into):
        assert query == event_feed.HEADS
        assert into is SignedHead
        return [head for head in self.heads if head.position > parameters["after"]][: parameters["limit"]]


@pytest.mark.anyio
async def test_signed_heads_come_with_the_text_that_was_signed_and_the_keys():
    found = await event_feed.heads(1, limit=10, actor=SERVICE, reads=SignedHeads(), keys=[b"k" * 32])
    assert [(one.position, one.signed_text) for one in found.heads] == [(3, f"3:ab:{NOW.isoformat()}")]
    assert found.public_keys == [base64.b64encode(b"k" * 32).decode()]
    with pytest.raises(Forbidden):
        await event_feed.heads(0, limit=10, actor=actor(), reads=SignedHeads(), keys=[])
