"""The activity feed: exactly what the reader may see at that moment, in order, from any position."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from application import datasets
from domain.access import Grant, Role
from infrastructure.postgres.query_database import PostgresQueryDatabase
from projections import activity
from projections.access import subject_of
from projections.activity import ScanLimits

pytestmark = pytest.mark.anyio

COUNT = 3  # datasets
READERS = ("owner", "friend", "stranger", "admin")


@pytest.fixture
async def db(app_url):
    db = PostgresQueryDatabase(app_url)
    await db.open()
    yield db
    await db.close()


which = st.integers(0, COUNT - 1)
steps = st.one_of(
    st.tuples(st.just("upload"), which, st.integers(1, 6)),
    st.tuples(st.just("share"), which),
    st.tuples(st.just("withdraw"), which),
    st.tuples(st.just("delete"), which),
    st.tuples(st.just("sign in"), st.sampled_from(READERS)),
    st.tuples(st.just("look"), st.integers(1, 5)),
)


class Story:
    """People and datasets, what happens to them, and what the reader is told meanwhile."""

    def __init__(self, scenario, connection, reader, start, limits):
        self.scenario, self.connection, self.limits = scenario, connection, limits
        roles = {"owner": Role.RESEARCHER, "friend": Role.ANALYST, "stranger": Role.VIEWER, "admin": Role.ADMIN}
        self.people = {name: scenario.user(role, name=name) for name, role in roles.items()}
        self.reader = self.people[reader]
        self.datasets = [scenario.dataset(self.people["owner"], str(number)) for number in range(COUNT)]
        self.shared, self.deleted = set(), set()
        self.head = scenario.follow()
        self.position = max(0, self.head - start)

    def happens(self, what, which, *more):
        if what == "sign in":
            self.scenario.session(self.people[which])
        elif which not in self.deleted:
            getattr(self, what)(which, *more)
        self.head = self.scenario.follow()

    def upload(self, which, count):
        for number in range(count):
            self.scenario.image(self.people["owner"], self.datasets[which], f"{number}.png")

    def share(self, which):
        self.shared.add(which)
        self.scenario.share(self.people["owner"], self.datasets[which], self.people["friend"], Grant.VIEWER)

    def withdraw(self, which):
        if which in self.shared:
            self.shared.remove(which)
            command = self.scenario.command(self.people["owner"])
            datasets.withdraw(self.datasets[which], user_id=self.people["friend"].id, command=command, log=self.scenario.log)

    def delete(self, which):
        self.deleted.add(which)
        self.scenario.delete_dataset(self.people["owner"], self.datasets[which])

    def visible(self, asked):
        """The positions behind the reader's own that it may see now; by definition, not by a query."""
        subject = subject_of(self.reader)
        granted = {row[0] for row in self.connection.execute("select dataset from visible where subject = %s", (subject,))}
        events = self.connection.execute("select position, dataset, subjects from activity where position > %s", (self.position,))
        return sorted(
            position
            for position, dataset, subjects in events
            if (self.reader.is_admin or dataset in granted or self.reader.id in subjects) and (asked is None or dataset in asked)
        )

    async def look(self, db, limit, asked, head):
        expected = self.visible(asked)
        feed = await activity.after(db, self.reader, position=self.position, limit=limit, datasets=asked, head=head, limits=self.limits)
        assert [one.position for one in feed.items] == [position for position in expected if position <= feed.position][:limit]
        assert len(feed.items) == len([position for position in expected if position <= feed.position])
        assert feed.position > self.position or not feed.more
        assert feed.more or not [position for position in expected if position > feed.position]
        self.position = feed.position
        return feed.more


@given(
    told=st.lists(steps, max_size=12),
    reader=st.sampled_from(("friend", *READERS)),
    asked=st.none() | st.sets(which),
    start=st.integers(0, 1000),
    hint=st.none() | st.integers(-20, 20),
    window=st.sampled_from([2, 5, 1000]),
)
@example(told=[("share", 0), ("withdraw", 0)], reader="friend", asked=None, start=0, hint=None, window=5)
@example(told=[("upload", 0, 6), ("upload", 1, 2)], reader="owner", asked=None, start=0, hint=None, window=2)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_a_subscriber_gets_exactly_what_it_may_see(db, scenario, connection, told, reader, asked, start, hint, window):
    story = Story(scenario, connection, reader, start, ScanLimits(events_per_scan=window, min_events_per_dataset=1))
    chosen = None if asked is None else {story.datasets[number] for number in asked}
    for what, *more in [*told, ("look", 3)]:
        if what != "look":
            story.happens(what, *more)
            continue
        await story.look(db, more[0], chosen, None if hint is None else story.head + hint)
    while await story.look(db, 4, chosen, None):
        pass


async def test_what_others_do_is_not_visited(db, scenario):
    owner, stranger, other = scenario.user(), scenario.user(Role.VIEWER), scenario.user()
    cells, own = scenario.dataset(owner), scenario.dataset(other)
    for number in range(300):
        scenario.image(owner, cells, f"{number}.png")
    scenario.image(other, own)
    head = scenario.follow()
    for reader, events in ((stranger, 1), (other, 3)):
        feed = await activity.after(db, reader, position=0)
        assert (len(feed.items), feed.position, feed.more) == (events, head, False)
        assert feed.visited <= events + 2


async def test_an_administrator_who_asks_for_one_dataset_visits_no_other(db, scenario):
    owner, admin = scenario.user(), scenario.user(Role.ADMIN)
    cells, wanted = scenario.dataset(owner), scenario.dataset(owner)
    for number in range(100):
        scenario.image(owner, cells, f"{number}.png")
    scenario.image(owner, wanted)
    scenario.delete_dataset(owner, wanted)
    head = scenario.follow()
    feed = await activity.after(db, admin, position=0, datasets={wanted})
    assert [one.type for one in feed.items] == ["DatasetCreated", "ImageUploaded", "DatasetDeleted"]
    assert (feed.position, feed.more) == (head, False)
    assert feed.visited <= 5


async def test_the_datasets_of_a_reader_take_turns_however_busy_one_of_them_is(db, scenario):
    limits = ScanLimits(events_per_scan=8)
    owner = scenario.user()
    cells = [scenario.dataset(owner, str(number)) for number in range(20)]
    for number in range(60):
        scenario.image(owner, cells[0 if number % 7 else 5], f"{number}.png")
    head, position, seen, more = scenario.follow(), 0, [], True
    while more:
        feed = await activity.after(db, owner, position=position, limit=10, limits=limits)
        assert feed.visited <= 21 + 20 * limits.min_events_per_dataset
        seen += [one.position for one in feed.items]
        position, more = feed.position, feed.more
    assert seen == list(range(1, head + 1))
