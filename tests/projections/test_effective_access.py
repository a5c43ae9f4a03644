"""The effective grants: whatever happens to grants, teams and keys, the read models, the log and a simple model agree."""

from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from application import datasets, teams
from application.grants import grant_of
from domain import api_key, dataset, user
from domain.access import Actor, Grant, Role, Scope, grant_of_scopes
from domain.api_key import OwnerKind
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from projections import api_keys
from projections import datasets as dataset_models
from projections import teams as team_models
from projections.access import ADMINISTRATORS, subject_of
from projections.engine.postgres_store import _row_statements
from projections.engine.projection import PositionedEvent, event_steps, fold_batch
from tests.given import NOW, command
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(bytes(32))
ADMIN = Actor(id=uuid4(), role=Role.ADMIN)
TABLES = (api_keys.TABLE, team_models.TABLE, team_models.MEMBERS, dataset_models.TABLE, dataset_models.ACCESS)
SHARED = st.sampled_from([Grant.VIEWER, Grant.ANALYST, Grant.EDITOR])
SCOPES = st.sets(st.sampled_from(Scope), min_size=1, max_size=3)
ANY = st.integers(0, 10**6)
VISIBLE = "select subject, dataset, role from visible where subject <> %s and subject <> all(%s)"
EFFECTIVE = "select subject, dataset, role from effective_access order by 1, 2"


class Projection:
    """Writes the events of a log to the tables of one schema, in batches, with the statements of the projector."""

    def __init__(self, connection, schema):
        self.connection, self.schema, self.rows = connection, schema, {table.name: {} for table in TABLES}
        for table in TABLES:
            self._execute(f"delete from {table.name}")
        assert self.effective() == []

    def apply(self, events):
        changes = fold_batch(event_steps(TABLES, events), {name: dict(rows) for name, rows in self.rows.items()})
        for written in changes:
            kept = self.rows[written.table.name]
            if written.table.loads:
                kept |= {row.id: row for row in written.upserts}
            for statement, parameters in _row_statements(written):
                self._execute(statement, parameters)

    def visible(self, *, teams):
        return {tuple(row) for row in self._execute(VISIBLE, (ADMINISTRATORS, list(teams)))}

    def effective(self):
        return self._execute(EFFECTIVE).fetchall()

    def _execute(self, statement, parameters=()):
        self.connection.execute("select set_config('search_path', %s, false)", (self.schema,))
        return self.connection.execute(statement, parameters)


class AccessMachine(RuleBasedStateMachine):
    """People share datasets directly and with teams, and issue keys. `connection` is set by the test."""

    connection, compared = None, 0

    @initialize()
    def begin(self):
        self.log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
        self.live = Projection(self.connection, "read")
        self.position, self.events = 0, []
        self.people = [self._person() for _ in range(4)]
        self.service = self._person().id  # with a data key, which seals the names of keys
        self.owners, self.direct, self.deleted = {}, {}, set()
        self.members, self.by_team, self.ended = {}, {}, set()
        self.keys, self.revoked = {}, set()
        self.create_dataset(0)
        self.create_team(1)
        [shared], [group] = self.owners, self.members
        self.change_members(0, 2, joins=True)
        datasets.share_with_team(shared, team_id=group, grant=Grant.ANALYST, **self._by(ADMIN))
        self.by_team[group, shared] = Grant.ANALYST
        self._project()

    def _person(self):
        who = uuid4()
        names = {"email": f"{who}@example.org", "username": str(who), "first_name": "A", "last_name": "B"}
        self.log.append(command(), user.register(who, **names, role=Role.RESEARCHER, by=who, at=NOW))
        return Actor(id=who, role=Role.RESEARCHER)

    def _project(self):
        recorded = self.log.read(self.position, 1000)
        new = [PositionedEvent(one.position, self.log.decode(one)) for one in recorded]
        self.events += new
        self.position = recorded[-1].position if recorded else self.position
        self.live.apply(new)

    # ---- what happens ----
    def _chosen(self, number, things):
        things = sorted(things, key=str)
        return things[number % len(things)]

    def _person_with(self, number):
        return self.people[number % len(self.people)]

    def _by(self, who):
        return {"command": command(who), "log": self.log}

    @property
    def _open(self):
        return set(self.owners) - self.deleted

    @property
    def _teams(self):
        return set(self.members) - self.ended

    @rule(who=ANY)
    def create_dataset(self, who):
        if len(self._open) < 2:
            owner = self._person_with(who)
            made = datasets.create(name="cells", description=None, **self._by(owner)).id
            self.owners[made] = owner
            self.direct[owner.id, made] = Grant.OWNER

    @rule(who=ANY)
    def create_team(self, who):
        if len(self._teams) < 2:
            owner = self._person_with(who)
            made = teams.create(name="Haematology", **self._by(owner)).id
            self.members[made] = {owner.id}

    @precondition(lambda self: self._open)
    @rule(which=ANY, whom=ANY, grant=SHARED)
    def share(self, which, whom, grant):
        shared, other = self._chosen(which, self._open), self._person_with(whom)
        if other != self.owners[shared]:
            datasets.share(shared, user_id=other.id, grant=grant, **self._by(self.owners[shared]))
            self.direct[other.id, shared] = grant

    @precondition(lambda self: self._open)
    @rule(which=ANY, whom=ANY)
    def withdraw(self, which, whom):
        shared, other = self._chosen(which, self._open), self._person_with(whom)
        if other != self.owners[shared]:
            datasets.withdraw(shared, user_id=other.id, **self._by(self.owners[shared]))
            self.direct.pop((other.id, shared), None)

    @precondition(lambda self: self._open)
    @rule(which=ANY, whom=ANY)
    def transfer(self, which, whom):
        given, other = self._chosen(which, self._open), self._person_with(whom)
        before = self.owners[given]
        datasets.transfer(given, user_id=other.id, **self._by(before))
        self.direct[before.id, given], self.direct[other.id, given] = Grant.EDITOR, Grant.OWNER
        self.owners[given] = other

    @precondition(lambda self: self._open)
    @rule(which=ANY)
    def delete_dataset(self, which):
        gone = self._chosen(which, self._open)
        datasets.delete(gone, **self._by(self.owners[gone]))
        self.deleted.add(gone)

    @precondition(lambda self: self._open and self._teams)
    @rule(which=ANY, whom=ANY, grant=SHARED)
    def share_with_team(self, which, whom, grant):
        shared, group = self._chosen(which, self._open), self._chosen(whom, self._teams)
        datasets.share_with_team(shared, team_id=group, grant=grant, **self._by(ADMIN))
        self.by_team[group, shared] = grant

    @precondition(lambda self: self._open and self._teams)
    @rule(which=ANY, whom=ANY)
    def withdraw_from_team(self, which, whom):
        shared, group = self._chosen(which, self._open), self._chosen(whom, self._teams)
        datasets.withdraw_from_team(shared, team_id=group, **self._by(self.owners[shared]))
        self.by_team.pop((group, shared), None)

    @precondition(lambda self: self._teams)
    @rule(which=ANY, whom=ANY, joins=st.booleans())
    def change_members(self, which, whom, joins):
        group, other = self._chosen(which, self._teams), self._person_with(whom)
        change = teams.add_member if joins else teams.remove_member
        change(group, user_id=other.id, **self._by(ADMIN))
        (self.members[group].add if joins else self.members[group].discard)(other.id)

    @precondition(lambda self: self._teams)
    @rule(which=ANY)
    def delete_team(self, which):
        group = self._chosen(which, self._teams)
        teams.delete(group, **self._by(ADMIN))
        self.ended.add(group)

    @precondition(lambda self: self.owners and len(self.keys) < 4)
    @rule(whose=ANY, which=ANY, several=st.booleans(), scopes=SCOPES)
    def issue_key(self, whose, which, several, scopes):
        owner, kind = (self.service, OwnerKind.SERVICE) if whose % 4 == 0 else (self._person_with(whose).id, OwnerKind.USER)
        limited = set(self.owners) if several else {self._chosen(which, self.owners)}
        key = uuid4()
        about = {"owner": owner, "owner_kind": kind, "name": "microscope", "scopes": scopes, "datasets": limited}
        self.log.append(command(), api_key.issue(key, **about, secret_hash=bytes(32), by=owner, at=NOW))
        self.keys[key] = (owner, kind, frozenset(scope.value for scope in scopes), frozenset(limited))

    @precondition(lambda self: set(self.keys) - self.revoked)
    @rule(which=ANY)
    def revoke_key(self, which):
        key = self._chosen(which, set(self.keys) - self.revoked)
        self.log.append(command(), *api_key.revoke(self.log.load(key, api_key.evolve), by=self.service, at=NOW))
        self.revoked.add(key)

    @rule()
    def project(self):
        self._project()

    # ---- what must hold ----
    def _model(self, person, shared):
        """The highest of the grants, as one would work it out by hand."""
        found = [self.direct.get((person, shared))]
        found += [self.by_team.get((group, shared)) for group in self._teams if person in self.members[group]]
        return max(filter(None, found), key=lambda grant: grant.level, default=None)

    def _wanted(self):
        wanted = {}
        for shared in self._open:
            for person in self.people:
                wanted[person.id, shared] = self._model(person.id, shared)
            for key in set(self.keys) - self.revoked:
                owner, kind, scopes, limited = self.keys[key]
                if shared in limited:
                    wanted[key, shared] = self._model(owner, shared) if kind is OwnerKind.USER else grant_of_scopes(scopes)
        return {(subject, shared): grant for (subject, shared), grant in wanted.items() if grant}

    def _actors(self):
        yield from self.people
        for key in set(self.keys) - self.revoked:
            owner, kind, scopes, limited = self.keys[key]
            role = Role.RESEARCHER if kind is OwnerKind.USER else None
            yield Actor(id=owner, kind=kind.value, role=role, scopes=scopes, key=key, datasets=limited)

    @invariant()
    def the_log_gives_what_the_model_says(self):
        wanted = self._wanted()
        for shared in self._open:
            state = self.log.load(shared, dataset.evolve)
            for actor in self._actors():
                assert grant_of(actor, state, self.log) == wanted.get((subject_of(actor), shared))

    @invariant()
    def the_read_models_show_what_the_model_says_once_they_follow(self):
        if self.position == self.log.head():
            wanted = {(*place, grant.value) for place, grant in self._wanted().items()}
            assert self.live.visible(teams=self.members) == wanted
            type(self).compared += len(wanted)

    def teardown(self):
        if hasattr(self, "live"):
            self._project()
            self.the_read_models_show_what_the_model_says_once_they_follow()
            rebuilt = Projection(self.connection, "rebuilt")
            rebuilt.apply(self.events)
            assert rebuilt.effective() == self.live.effective()


@pytest.fixture
def schemas(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models('rebuilt')")
        yield owner


def test_grants_of_people_teams_and_keys_are_what_a_simple_model_says(schemas):
    machine = type("Machine", (AccessMachine,), {"connection": schemas})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
    assert machine.compared > 100
