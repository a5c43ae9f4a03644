"""API keys, from their issue to their end: who may do what, and which secrets work when."""

from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from application import accounts, api_keys, service_accounts
from application.key_identities import PREVIOUS_SECRET, SECONDS_BETWEEN_USES, SECRET, AcceptedKey, KeyIdentities
from application.key_text import KeySecret, read_key
from application.ports import Secret
from application.services import Claims
from domain import api_key, service_account, user
from domain.access import NEEDED_ROLES, Actor, Role, Scope
from domain.api_key import MAX_LIFETIME, MAX_OVERLAP
from domain.errors import Conflict, Forbidden, Invalid, NotAuthenticated, NotFound, StreamClosed, Taken, TooMany, Unavailable
from domain.user import Status
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.application.conftest import ROOT
from tests.given import NOW, command
from tests.rigs.scenario import SYSTEM, Scenario
from tests.twins.event_store import MemoryRecorder
from tests.twins.key_uses import MemoryKeyUses
from tests.twins.refresh_tokens import MemoryRefreshTokens

READ = [Scope.IMAGES_READ]


class Lab:
    """A log with a clock, people, programs, and two processes that authenticate keys."""

    def __init__(self):
        self.log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
        self.scenario, self.now, self.seconds = Scenario(self.log, None), NOW, 0.0
        self.uses, self.refusals = MemoryKeyUses(clock=lambda: self.now), []
        self.identities = self.process()
        self.admin = self.scenario.user(Role.ADMIN, "root")

    def process(self, **options):
        about = {"count_refusal": self.refusals.append, "clock": lambda: self.seconds, "now": lambda: self.now}
        return KeyIdentities(self.log, self.uses, **about | options)

    def wait(self, period):
        self.now += period
        self.seconds += period.total_seconds()

    def command(self, actor):
        return command(actor, id=uuid4(), at=self.now)

    def service(self, name="scope-1"):
        return service_accounts.create(name=name, command=self.command(self.admin), log=self.log).id

    def issue(self, owner=None, *, service=None, scopes=READ, datasets=None, days=90):
        """The text of a new key."""
        secret, lifetime = KeySecret(), timedelta(days=days)
        about = {"name": "key", "scopes": scopes, "datasets": datasets, "lifetime": lifetime, "secret_hash": secret.hash, "log": self.log}
        if service is not None:
            issued = api_keys.issue_for_service(service, command=self.command(owner or self.admin), **about)
        else:
            issued = api_keys.issue_own(command=self.command(owner), **about)
        return secret.text(issued.id)

    def rotate(self, key, by, *, overlap=timedelta(days=1), days=None):
        secret = KeySecret()
        about = {"lifetime": None if days is None else timedelta(days=days), "overlap": overlap, "secret_hash": secret.hash}
        api_keys.rotate(read_key(key).id, command=self.command(by), log=self.log, **about)
        return secret.text(read_key(key).id)

    def revoke(self, key, by):
        api_keys.revoke(read_key(key).id, command=self.command(by), log=self.log)

    def actor(self, key, identities=None):
        return (identities or self.process()).authenticate(read_key(key), network="192.0.2.1").actor

    def works(self, key):
        try:
            self.actor(key)
        except NotAuthenticated:
            return False
        return True

    def set_status(self, member, status):
        self.scenario.change(member.id, user, lambda it: user.change_status(it, status, by=SYSTEM.id, at=self.now))


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def ada(lab):
    return lab.scenario.user(Role.RESEARCHER, "ada")


# ---- who may issue what ----
def test_a_key_acts_as_its_owner_within_its_scopes(lab, ada):
    key = lab.issue(ada)
    actor = lab.actor(key)
    assert (actor.id, actor.kind, actor.role, actor.scopes, actor.key) == (ada.id, "user", Role.RESEARCHER, set(READ), read_key(key).id)
    assert actor.datasets is None


def test_a_key_of_a_service_has_no_role(lab):
    service = lab.service()
    actor = lab.actor(lab.issue(service=service, scopes=list(Scope)))
    assert (actor.id, actor.kind, actor.role, actor.name, actor.scopes) == (service, "service", None, "scope-1", set(Scope))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("scope", Scope)
def test_a_person_may_only_give_scopes_that_the_role_can_use(lab, role, scope):
    person = lab.scenario.user(role)
    if role.level >= NEEDED_ROLES[scope].level:
        assert lab.actor(lab.issue(person, scopes=[scope])).scopes == {scope}
    else:
        with pytest.raises(Forbidden, match=f"{scope.value}: it needs the role"):
            lab.issue(person, scopes=[scope])


def test_only_administrators_manage_service_accounts(lab, ada):
    service = lab.service()
    for actor in (ada, Actor(id=uuid4(), kind="service", scopes=frozenset(Scope)), Actor(id=uuid4(), kind="pending")):
        with pytest.raises(Forbidden):
            service_accounts.create(name="x", command=lab.command(actor), log=lab.log)
        with pytest.raises(Forbidden):
            service_accounts.delete(service, command=lab.command(actor), log=lab.log)
        with pytest.raises(Forbidden):
            service_accounts.revoke_legacy(command=lab.command(actor), log=lab.log)
        with pytest.raises(Forbidden):
            lab.issue(actor, service=service)


def test_no_key_issues_rotates_or_revokes_keys(lab):
    key = lab.issue(lab.admin, scopes=list(Scope))
    robot, service = lab.actor(key), lab.service()
    assert robot.role is Role.ADMIN
    for attempt in (
        lambda: lab.issue(robot),
        lambda: lab.issue(robot, service=service),
        lambda: lab.rotate(key, robot),
        lambda: lab.revoke(key, robot),
        lambda: service_accounts.create(name="x", command=lab.command(robot), log=lab.log),
        lambda: service_accounts.delete(service, command=lab.command(robot), log=lab.log),
    ):
        with pytest.raises(Forbidden, match="no key may do this"):
            attempt()


def test_the_key_of_another_person_looks_like_none(lab, ada):
    key, mallory = lab.issue(ada), lab.scenario.user(Role.RESEARCHER, "mallory")
    for attempt in (lab.rotate, lab.revoke):
        with pytest.raises(NotFound, match="Key not found"):
            attempt(key, mallory)
        with pytest.raises(NotFound, match="Key not found"):
            attempt(KeySecret().text(ada.id), mallory)  # the id of a stream that is no key
    with pytest.raises(Forbidden, match="Only the owner can rotate"):
        lab.rotate(key, lab.admin)
    lab.revoke(key, lab.admin)
    assert not lab.works(key)


def test_two_programs_cannot_have_one_name_and_a_deleted_one_gives_it_up(lab):
    service = lab.service("Scope")
    with pytest.raises(Taken, match="choose another one"):
        lab.service("scope")
    assert service_accounts.find("scope", lab.log).id == service
    service_accounts.delete(service, command=lab.command(lab.admin), log=lab.log)
    assert service_accounts.find("scope", lab.log) is None
    assert lab.service("scope") != service


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "\u00e4", "x" * 101, "a\n", "a\0"])
def test_names_of_programs_are_plain(lab, name):
    with pytest.raises(Invalid, match="name must have"):
        lab.service(name)


@pytest.mark.parametrize("days", [0, -1, MAX_LIFETIME.days + 1, 10**6])
def test_no_key_works_for_longer_than_a_year(lab, ada, days):
    with pytest.raises(Invalid, match="days must be 1 to 366"):
        lab.issue(ada, days=days)
    key = lab.issue(ada)
    with pytest.raises(Invalid, match="days must be 1 to 366"):
        lab.rotate(key, ada, days=days)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), MAX_OVERLAP + timedelta(seconds=1)])
def test_two_secrets_work_for_a_week_at_most(lab, ada, overlap):
    with pytest.raises(Invalid, match="overlap_hours must be 0 to 168"):
        lab.rotate(lab.issue(ada), ada, overlap=overlap)


def test_a_key_needs_a_scope_and_a_name(lab, ada):
    with pytest.raises(Invalid, match="scopes must name at least one"):
        lab.issue(ada, scopes=[])
    with pytest.raises(Invalid, match="dataset_ids must name 1 to 100"):
        lab.issue(ada, datasets=[])


def test_a_key_is_only_issued_for_datasets_that_it_will_reach(lab, ada):
    mine, foreign = lab.scenario.dataset(ada), lab.scenario.dataset(lab.scenario.user(Role.RESEARCHER, "eve"))
    assert lab.actor(lab.issue(ada, datasets=[mine])).datasets == {mine}
    for unreachable in (foreign, uuid4()):
        with pytest.raises(Invalid, match="does not exist, or on which your account has no grant"):
            lab.issue(ada, datasets=[mine, unreachable])
    with pytest.raises(Invalid, match="no grant"):
        lab.issue(lab.admin, datasets=[mine])  # a limited key makes nobody an administrator
    lab.issue(service=lab.service(), datasets=[mine, foreign])
    with pytest.raises(Invalid, match="does not exist"):
        lab.issue(service=lab.service("other"), datasets=[uuid4()])


def test_a_limited_key_makes_nobody_an_administrator(lab):
    mine = lab.scenario.dataset(lab.admin)
    actor = lab.actor(lab.issue(lab.admin, datasets=[mine]))
    assert not actor.is_admin
    assert lab.actor(lab.issue(lab.admin)).is_admin


def test_nothing_is_issued_to_an_account_that_was_just_deleted(lab, ada):
    lab.scenario.change(ada.id, user, lambda it: user.delete(it, by=SYSTEM.id, at=NOW))
    with pytest.raises(NotFound, match="deleted in the meantime"):
        lab.issue(ada)
    service = lab.service()
    service_accounts.delete(service, command=lab.command(lab.admin), log=lab.log)
    with pytest.raises(NotFound, match="Service account not found"):
        lab.issue(service=service)


# ---- which keys work ----
def test_a_key_works_until_it_expires(lab, ada):
    key = lab.issue(ada, days=2)
    lab.wait(timedelta(days=2) - timedelta(seconds=1))
    assert lab.works(key)
    lab.wait(timedelta(seconds=1))
    assert not lab.works(key)
    with pytest.raises(Conflict, match="revoked or has expired"):
        lab.rotate(key, ada)


def test_a_cached_key_stops_at_the_moment_at_which_it_expires(lab, ada):
    key = lab.issue(ada, days=1)
    lab.wait(timedelta(days=1) - timedelta(seconds=1))
    assert lab.actor(key, lab.identities).id == ada.id
    lab.wait(timedelta(seconds=1))
    with pytest.raises(NotAuthenticated):
        lab.actor(key, lab.identities)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(lab, ada):
    old = lab.issue(ada)
    new = lab.rotate(old, ada, overlap=timedelta(0))
    assert (lab.works(old), lab.works(new)) == (False, True)
    assert lab.log.secret(PREVIOUS_SECRET, read_key(old).id) is None


def test_a_second_rotation_ends_the_first_secret_and_never_lengthens_its_life(lab, ada):
    first = lab.issue(ada, days=1)
    second = lab.rotate(first, ada, overlap=timedelta(days=7), days=366)
    lab.wait(timedelta(days=1))
    assert (lab.works(first), lab.works(second)) == (False, True)
    third = lab.rotate(second, ada)
    fourth = lab.rotate(third, ada)
    assert [lab.works(key) for key in (first, second, third, fourth)] == [False, False, True, True]


def test_a_rotated_key_works_for_as_long_as_before_unless_a_lifetime_is_named(lab, ada):
    def days_left(key):
        return (api_keys.load_key(lab.log, read_key(key).id, ada).expires_at - lab.now).days

    key = lab.issue(ada, days=30)
    for days, expected in ((None, 30), (7, 7), (None, 7)):
        lab.wait(timedelta(days=5))
        assert days_left(lab.rotate(key, ada, days=days)) == expected


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.INACTIVE])
def test_keys_of_an_account_that_may_not_sign_in_do_not_work(lab, ada, status):
    key = lab.issue(ada)
    lab.set_status(ada, status)
    assert not lab.works(key)
    lab.set_status(ada, Status.ACTIVE)
    assert lab.works(key)


def test_keys_of_deleted_and_erased_accounts_and_programs_never_work_again_and_count_as_revoked(lab, ada):
    service, eve = lab.service(), lab.scenario.user(Role.RESEARCHER, "eve")
    keys = [lab.issue(ada), lab.issue(eve), lab.issue(service=service)]
    accounts.delete(ada.id, command=lab.command(lab.admin), log=lab.log, tokens=MemoryRefreshTokens())
    accounts.erase(eve.id, command=lab.command(lab.admin), log=lab.log, tokens=MemoryRefreshTokens())
    service_accounts.delete(service, command=lab.command(lab.admin), log=lab.log)
    assert [lab.works(key) for key in keys] == [False, False, False]
    assert [key.revoked for key in api_keys.states_of([read_key(key).id for key in keys], lab.log).values()] == [True, True, True]
    for key, by in zip(keys, (ada, eve, lab.admin), strict=True):
        with pytest.raises(NotFound, match="The owner of the key was deleted"):
            lab.rotate(key, by)


def test_the_name_of_a_key_is_erased_with_its_owner(lab, ada):
    key = read_key(lab.issue(ada)).id
    assert lab.log.load(key, api_key.evolve).name == "key"
    lab.scenario.erase(ada)
    lab.log.codec.forget(ada.id)
    assert lab.log.load(key, api_key.evolve).name == "[erased]"


def test_a_key_follows_the_role_of_its_owner(lab, ada):
    key = lab.issue(ada)
    lab.scenario.change(ada.id, user, lambda it: user.change_role(it, Role.VIEWER, by=SYSTEM.id, at=NOW))
    assert lab.actor(key).role is Role.VIEWER


@pytest.mark.parametrize("kind", [SECRET, PREVIOUS_SECRET])
def test_a_changed_row_in_the_database_gives_no_access(lab, ada, kind):
    key, planted = lab.issue(ada), KeySecret()
    lab.log.append(lab.command(SYSTEM), *_harmless(lab), secrets=[Secret(kind=kind, owner=read_key(key).id, value=planted.hash)])
    assert not lab.works(planted.text(read_key(key).id))


def test_a_deleted_row_in_the_database_ends_a_key(lab, ada):
    key = lab.issue(ada)
    lab.log.append(lab.command(SYSTEM), *_harmless(lab), secrets=[Secret(kind=SECRET, owner=read_key(key).id, value=None)])
    assert not lab.works(key)


def _harmless(lab):
    return [service_account.create(uuid4(), name="harmless", by=SYSTEM.id, at=lab.now)]


def test_a_secret_of_another_key_of_the_same_owner_does_not_work(lab, ada):
    one, other = (read_key(lab.issue(ada)) for _ in range(2))
    with pytest.raises(NotAuthenticated):
        lab.process().authenticate(msgspec.structs.replace(one, secret_hash=other.secret_hash), network="")


def test_no_other_stream_passes_for_a_key(lab, ada):
    for stream in (ada.id, lab.service(), lab.scenario.dataset(ada), uuid4()):
        assert not lab.works(KeySecret().text(stream))


# ---- caching, limits and uses ----
def test_a_revoked_key_is_refused_everywhere_within_five_seconds_and_here_at_once(lab, ada):
    key, elsewhere = lab.issue(ada), lab.process()
    for process in (lab.identities, elsewhere):
        lab.actor(key, process)
    lab.revoke(key, ada)
    lab.identities.forget(read_key(key).id)
    with pytest.raises(NotAuthenticated):
        lab.actor(key, lab.identities)
    assert lab.actor(key, elsewhere).id == ada.id
    lab.wait(timedelta(seconds=5))
    with pytest.raises(NotAuthenticated):
        lab.actor(key, elsewhere)


def test_a_change_of_its_owner_is_seen_here_at_once(lab, ada):
    key = lab.issue(ada)
    lab.actor(key, lab.identities)
    lab.set_status(ada, Status.SUSPENDED)
    lab.identities.forget(ada.id)
    with pytest.raises(NotAuthenticated):
        lab.actor(key, lab.identities)


def test_an_identity_that_was_loaded_before_a_change_is_not_cached(lab, ada):
    key = read_key(lab.issue(ada))

    process = lab.process()
    loaded = process._verified(key)
    generation = process._entries.generation
    process.forget(ada.id)
    process._entries.accept(key, AcceptedKey(loaded, generation))
    assert process.cached(key) is None


class CountingLog:
    """A log that counts its queries."""

    def __init__(self, log):
        self._log, self.queries = log, 0

    def __getattr__(self, name):
        self.queries += 1
        return getattr(self._log, name)


def test_a_refused_key_costs_no_further_query_for_some_seconds(lab):
    counting = CountingLog(lab.log)
    process = KeyIdentities(counting, lab.uses, count_refusal=lab.refusals.append, clock=lambda: lab.seconds, now=lambda: lab.now)
    garbage = read_key(KeySecret().text(uuid4()))
    for _ in range(100):
        with pytest.raises(NotAuthenticated):
            process.authenticate(garbage, network="192.0.2.7")
    assert counting.queries == 1
    assert lab.refusals == ["192.0.2.7"]
    assert lab.uses.writes == 0


def test_too_many_unknown_keys_from_one_network_are_refused_as_such(lab, ada):
    def limit(network):
        raise TooMany(f"Too many attempts from {network}", retry_after=1)

    process, key = lab.process(count_refusal=limit), lab.issue(ada)
    with pytest.raises(TooMany):
        process.authenticate(read_key(KeySecret().text(uuid4())), network="192.0.2.7")
    assert lab.actor(key, process).id == ada.id, "valid keys are not affected"


def test_the_caches_do_not_grow_beyond_their_limit(lab, ada):
    process = lab.process(max_cached=3)
    for _ in range(10):
        lab.actor(lab.issue(ada), process)
        with pytest.raises(NotAuthenticated):
            process.authenticate(read_key(KeySecret().text(uuid4())), network="")
    sizes = [len(process._entries._accepted), len(process._entries._refused), len(process._recognised)]
    assert sizes == [3, 3, 3]


def test_a_use_is_stored_once_a_minute(lab, ada):
    key = lab.issue(ada)
    for _ in range(int(SECONDS_BETWEEN_USES) * 2):
        lab.actor(key, lab.identities)
        lab.wait(timedelta(seconds=1))
    assert lab.uses.writes == 2
    use = lab.uses.of([read_key(key).id])[read_key(key).id]
    assert (use.first_at, use.network) == (NOW, "192.0.2.1")
    assert use.last_at == NOW + timedelta(seconds=SECONDS_BETWEEN_USES)


def test_a_use_that_cannot_be_stored_refuses_no_request_and_is_stored_later(lab, ada):
    key, failing = lab.issue(ada), [True]

    class Unreliable(MemoryKeyUses):
        def record(self, *arguments, **options):
            if failing[0]:
                raise Unavailable("The database is unavailable")
            super().record(*arguments, **options)

    uses = Unreliable()
    process = KeyIdentities(lab.log, uses, count_refusal=lab.refusals.append, clock=lambda: lab.seconds, now=lambda: lab.now)
    assert lab.actor(key, process).id == ada.id
    failing[0] = False
    lab.wait(timedelta(seconds=6))
    lab.actor(key, process)
    assert uses.writes == 1


# ---- holders of signed addresses ----
def test_an_address_works_while_its_key_does(lab, ada):
    key = lab.issue(ada)
    holder = read_key(key).id
    assert lab.process().holder(holder) == lab.actor(key)
    lab.revoke(key, ada)
    with pytest.raises(NotAuthenticated):
        lab.process().holder(holder)


def test_an_address_of_a_suspended_owner_does_not_work(lab, ada):
    holder = read_key(lab.issue(ada)).id
    lab.set_status(ada, Status.SUSPENDED)
    with pytest.raises(NotAuthenticated):
        lab.process().holder(holder)


# ---- signed tokens of earlier releases ----
def legacy(lab, *, age=timedelta(0), lifetime=timedelta(days=3650)):
    issued = lab.now - age
    return Claims(
        subject=uuid4(),
        session_id=None,
        role=None,
        scopes=frozenset({"images:read"}),
        issued_at=issued,
        expires_at=issued + lifetime,
        token_id=uuid4(),
        name="archive",
    )


def test_a_token_of_an_earlier_release_works_for_ninety_days_after_its_issue(lab):
    young, old = legacy(lab, age=timedelta(days=90) - timedelta(seconds=1)), legacy(lab, age=timedelta(days=90))
    identity = lab.process().authenticate(young, network="192.0.2.1")
    assert (identity.actor.name, identity.actor.kind, identity.actor.scopes) == ("archive", "service", {"images:read"})
    assert identity.expires_at == lab.now + timedelta(seconds=1)
    with pytest.raises(NotAuthenticated):
        lab.process().authenticate(old, network="")
    [use] = lab.uses.legacy()
    assert (use.key, use.legacy_name, use.network, use.legacy_expiry) == (young.token_id, "archive", "192.0.2.1", identity.expires_at)


def test_revoked_tokens_of_earlier_releases_are_refused_within_ten_seconds(lab):
    token, process = legacy(lab), lab.process()
    process.authenticate(token, network="")
    assert service_accounts.legacy_tokens(lab.log) is None
    service_accounts.revoke_legacy(command=lab.command(lab.admin), log=lab.log)
    assert service_accounts.legacy_tokens(lab.log).revoked_at == lab.now
    holder = token.subject
    lab.wait(timedelta(seconds=9))
    with pytest.raises(NotAuthenticated):
        process.authenticate(token, network="")
    with pytest.raises(NotAuthenticated):
        lab.process().holder(holder)
    later = legacy(lab)
    assert process.authenticate(later, network="").actor.id == later.subject
    service_accounts.revoke_legacy(command=lab.command(lab.admin), log=lab.log)
    with pytest.raises(NotAuthenticated):
        lab.process().authenticate(later, network="")


# ---- the whole life ----
class LifeOfKeys(RuleBasedStateMachine):
    """Keys of two people and a program. The model keeps, for each secret, the moment until which it works."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.lab = Lab()
        self.people = [self.lab.scenario.user(Role.RESEARCHER, name) for name in ("ada", "eve")]
        self.service = self.lab.service()
        self.suspended, self.closed = set(), set()
        self.secrets = {}  # text of the key: (owner, until)
        self.current = {}  # key id: (text, expiry), unless it was revoked
        self.issued = set()

    @rule(target=keys, owner=st.sampled_from([0, 1, None]), days=st.integers(1, 366))
    def issue(self, owner, days):
        person = self.service if owner is None else self.people[owner].id
        if person in self.closed:
            with pytest.raises((NotFound, StreamClosed)):
                self._issue(owner, days)
            return uuid4()
        text = self._issue(owner, days)
        key = read_key(text).id
        until = self.lab.now + timedelta(days=days)
        self.secrets[text], self.current[key] = (person, until), (text, until)
        self.issued.add(text)
        return key

    def _issue(self, owner, days):
        if owner is None:
            return self.lab.issue(service=self.service, days=days)
        return self.lab.issue(self.people[owner], days=days)

    @rule(key=keys, hours=st.integers(0, 168), days=st.integers(1, 366))
    def rotate(self, key, hours, days):
        if key not in self.current:
            return
        text, until = self.current[key]
        owner = self.secrets[text][0]
        by = self.lab.admin if owner == self.service else next(one for one in self.people if one.id == owner)
        if owner in self.closed or self.lab.now >= until:
            with pytest.raises(NotFound if owner in self.closed else Conflict):
                self.lab.rotate(text, by)
            return
        new = self.lab.rotate(text, by, overlap=timedelta(hours=hours), days=days)
        for other, (holder, _) in list(self.secrets.items()):
            if read_key(other).id == key:
                self.secrets[other] = (holder, self.lab.now)
        self.secrets[text] = (owner, min(self.lab.now + timedelta(hours=hours), until))
        expiry = self.lab.now + timedelta(days=days)
        self.secrets[new], self.current[key] = (owner, expiry), (new, expiry)

    @rule(key=consumes(keys), by_admin=st.booleans())
    def revoke(self, key, by_admin):
        if key not in self.current:
            return
        text, _ = self.current.pop(key)
        owner = self.secrets[text][0]
        is_program = owner == self.service
        by = self.lab.admin if by_admin or is_program else next(one for one in self.people if one.id == owner)
        self.lab.revoke(text, by)
        self.lab.revoke(text, by)
        for other, (holder, _) in list(self.secrets.items()):
            if read_key(other).id == key:
                self.secrets[other] = (holder, self.lab.now)

    @rule(hours=st.integers(1, 24 * 100))
    def wait(self, hours):
        self.lab.wait(timedelta(hours=hours))

    @rule(which=st.sampled_from([0, 1]), suspended=st.booleans())
    def suspend_or_activate(self, which, suspended):
        person = self.people[which]
        if person.id in self.closed:
            return
        self.lab.set_status(person, Status.SUSPENDED if suspended else Status.ACTIVE)
        (self.suspended.add if suspended else self.suspended.discard)(person.id)

    @precondition(lambda self: not self.closed)
    @rule(which=st.sampled_from([1, None]))
    def close(self, which):
        owner = self.service if which is None else self.people[which].id
        if which is None:
            service_accounts.delete(owner, command=self.lab.command(self.lab.admin), log=self.lab.log)
        else:
            accounts.delete(owner, command=self.lab.command(self.lab.admin), log=self.lab.log, tokens=MemoryRefreshTokens())
        self.closed.add(owner)

    @invariant()
    def exactly_the_secrets_work_that_should(self):
        for text, (owner, until) in self.secrets.items():
            expected = self.lab.now < until and owner not in self.suspended | self.closed
            assert self.lab.works(text) == expected, (text, owner, until, self.lab.now)

    def teardown(self):
        """No event contains a secret, or its hash."""
        recorded = b"".join(one.data + one.meta for one in self.lab.log.read(0, 10_000))
        for text in self.secrets:
            assert text.encode() not in recorded
            assert read_key(text).secret_hash.hex().encode() not in recorded


LifeOfKeys.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLifeOfKeys = LifeOfKeys.TestCase
