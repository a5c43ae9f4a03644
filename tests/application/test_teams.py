"""Teams: their members share grants; owners transfer and delete what is theirs."""

from uuid import uuid4

import pytest

from application import accounts, datasets, images, models, teams
from application.datasets import load_dataset
from application.grants import grant_of, is_member, load_team, load_user, user_with_address
from domain import dataset, user
from domain.access import Actor, Grant, Role, Scope
from domain.dataset import MAX_TEAMS
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.team import MAX_MEMBERS
from domain.user import Status
from tests.given import actor, add_model, command, register

FILE = {"device_id": None, "filename": "x.png", "sha256": "ab" * 32, "size": 1000, "media_type": "image/png", "width": 96, "height": 96}
ADMIN = actor(Role.ADMIN)


@pytest.fixture
def ada(log):
    return register(actor(), log=log)


@pytest.fixture
def bob(log):
    return register(actor(Role.ANALYST), log=log)


@pytest.fixture
def cells(log, ada):
    return datasets.create(name="cells", description=None, command=command(ada), log=log).id


@pytest.fixture
def group(log, ada, bob):
    made = teams.create(name="Haematology", command=command(ada), log=log).id
    teams.add_member(made, user_id=bob.id, command=command(ada), log=log)
    return made


def share_with(group, dataset_id, grant, *, by, log):
    datasets.share_with_team(dataset_id, team_id=group, grant=grant, command=command(by), log=log)


def test_a_member_has_the_grant_of_the_team_while_both_last(log, ada, bob, cells, group):
    share_with(group, cells, Grant.EDITOR, by=ada, log=log)
    assert load_dataset(log, cells, bob, Grant.EDITOR)
    teams.remove_member(group, user_id=bob.id, command=command(ada), log=log)
    with pytest.raises(NotFound):
        load_dataset(log, cells, bob, Grant.VIEWER)
    teams.add_member(group, user_id=bob.id, command=command(ada), log=log)
    assert load_dataset(log, cells, bob, Grant.EDITOR)
    teams.delete(group, command=command(ada), log=log)
    with pytest.raises(NotFound):
        load_dataset(log, cells, bob, Grant.VIEWER)


def test_the_highest_of_several_grants_counts(log, ada, bob, cells, group):
    share_with(group, cells, Grant.VIEWER, by=ada, log=log)
    datasets.share(cells, user_id=bob.id, grant=Grant.ANALYST, command=command(ada), log=log)
    state = log.load(cells, dataset.evolve)
    assert grant_of(bob, state, log) is Grant.ANALYST
    share_with(group, cells, Grant.EDITOR, by=ada, log=log)
    assert grant_of(bob, log.load(cells, dataset.evolve), log) is Grant.EDITOR


def test_a_key_reaches_no_dataset_beyond_its_list_and_makes_nobody_an_administrator(log, ada, cells):
    state = log.load(cells, dataset.evolve)
    limited = {"kind": "user", "role": Role.RESEARCHER, "key": uuid4()}
    assert grant_of(Actor(id=ada.id, **limited, datasets=frozenset({cells})), state, log) is Grant.OWNER
    assert grant_of(Actor(id=ada.id, **limited, datasets=frozenset({uuid4()})), state, log) is None
    assert grant_of(Actor(id=uuid4(), **limited | {"role": Role.ADMIN}, datasets=frozenset({cells})), state, log) is None
    service = {"kind": "service", "scopes": frozenset({Scope.JOBS_RUN}), "key": uuid4()}
    assert grant_of(Actor(id=uuid4(), **service, datasets=frozenset({cells})), state, log) is Grant.ANALYST
    assert grant_of(Actor(id=uuid4(), **service, datasets=frozenset()), state, log) is None
    assert grant_of(Actor(id=ada.id, kind="pending"), state, log) is None


def test_a_team_is_managed_by_its_owner_and_administrators(log, ada, bob, group):
    stranger, member, other, newcomer = (register(actor(), log=log) for _ in range(4))
    for joining in (member, other):
        teams.add_member(group, user_id=joining.id, command=command(ADMIN), log=log)
    for change in (
        lambda by: teams.rename(group, name="Blood", command=command(by), log=log),
        lambda by: teams.add_member(group, user_id=newcomer.id, command=command(by), log=log),
        lambda by: teams.remove_member(group, user_id=other.id, command=command(by), log=log),
        lambda by: teams.delete(group, command=command(by), log=log),
    ):
        for refused, error in ((member, Forbidden), (bob, Forbidden), (stranger, NotFound)):
            with pytest.raises(error):
                change(refused)
        change(ada)


def test_a_member_leaves_whatever_the_role(log, ada, bob, group):
    viewer = register(actor(Role.VIEWER), log=log)
    teams.add_member(group, user_id=viewer.id, command=command(ada), log=log)
    teams.remove_member(group, user_id=viewer.id, command=command(viewer), log=log)
    assert not is_member(viewer.id, group, log)
    assert teams.remove_member(group, user_id=viewer.id, command=command(ada), log=log).position == 0
    with pytest.raises(NotFound):
        teams.remove_member(group, user_id=viewer.id, command=command(viewer), log=log)


def test_an_address_without_an_account_is_answered_alike_and_only_to_those_who_may_share(log, ada, bob, cells, group, passwords):
    names = {"username": "grace", "first_name": "Grace", "last_name": "Lab", "password": "a long and winding road"}
    grace = accounts.register(email="grace@example.org", **names, command=command(), log=log, passwords=passwords).id
    datasets.share_by_address(cells, email="Grace@Example.org", grant=Grant.VIEWER, command=command(ada), log=log)
    assert log.load(cells, dataset.evolve).grants[grace] is Grant.VIEWER
    teams.add_member_by_address(group, email="grace@example.org", command=command(ada), log=log)
    assert is_member(grace, group, log)
    with pytest.raises(NotFound, match="no account with this e-mail address"):
        datasets.share_by_address(cells, email="nobody@example.org", grant=Grant.VIEWER, command=command(ada), log=log)
    with pytest.raises(Invalid):
        datasets.share_by_address(cells, email="nobody", grant=Grant.VIEWER, command=command(ada), log=log)
    stranger = register(actor(), log=log)
    for email in ("grace@example.org", "nobody@example.org"):
        with pytest.raises(NotFound, match=r"^Dataset not found$"):
            datasets.share_by_address(cells, email=email, grant=Grant.VIEWER, command=command(stranger), log=log)
        with pytest.raises(NotFound, match=r"^Team not found$"):
            teams.add_member_by_address(group, email=email, command=command(stranger), log=log)


def test_what_a_command_names_is_loaded_or_not_found(log, ada, bob, group):
    assert load_team(log, group, bob).members == {ada.id, bob.id}
    assert load_user(log, bob.id).role is Role.ANALYST
    for load in (
        lambda: load_team(log, uuid4(), ADMIN),
        lambda: load_user(log, uuid4()),
        lambda: user_with_address(log, "nobody@example.org"),
    ):
        with pytest.raises(NotFound):
            load()


def test_who_may_not_share_does_not_learn_which_users_exist(log, cells, bob):
    stranger = register(actor(), log=log)
    for user_id in (bob.id, uuid4()):
        with pytest.raises(NotFound, match=r"^Dataset not found$"):
            datasets.share(cells, user_id=user_id, grant=Grant.VIEWER, command=command(stranger), log=log)


def test_the_owner_of_a_team_leaves_it_and_still_manages_it_and_shares_with_it(log, ada, cells, group):
    teams.remove_member(group, user_id=ada.id, command=command(ada), log=log)
    teams.rename(group, name="Cytology", command=command(ada), log=log)
    share_with(group, cells, Grant.VIEWER, by=ada, log=log)
    assert log.load(cells, dataset.evolve).team_grants == {group: Grant.VIEWER}
    assert not is_member(ada.id, group, log)


def test_a_dataset_is_shared_only_with_a_team_that_its_owner_owns_or_is_in(log, ada, cells):
    other = register(actor(), log=log)
    foreign = teams.create(name="Elsewhere", command=command(other), log=log).id
    for group in (foreign, uuid4()):
        with pytest.raises(NotFound, match=r"^Team not found$"):
            share_with(group, cells, Grant.VIEWER, by=ada, log=log)
    share_with(foreign, cells, Grant.VIEWER, by=ADMIN, log=log)
    with pytest.raises(Conflict):
        share_with(foreign, cells, Grant.OWNER, by=ADMIN, log=log)
    datasets.withdraw_from_team(cells, team_id=foreign, command=command(ada), log=log)
    assert log.load(cells, dataset.evolve).team_grants == {}


def test_teams_and_shares_have_limits(log, ada, cells, group):
    def add_one():
        teams.add_member(group, user_id=register(actor(), log=log).id, command=command(ada), log=log)

    def share_with_one():
        share_with(teams.create(name="Haematology", command=command(ada), log=log).id, cells, Grant.VIEWER, by=ada, log=log)

    for _ in range(MAX_MEMBERS - 2):
        add_one()
    with pytest.raises(Conflict, match=str(MAX_MEMBERS)):
        add_one()
    for _ in range(MAX_TEAMS):
        share_with_one()
    with pytest.raises(Conflict, match=str(MAX_TEAMS)):
        share_with_one()


def test_a_transferred_dataset_has_another_owner_and_the_previous_one_edits_it(log, ada, bob, cells):
    datasets.transfer(cells, user_id=bob.id, command=command(ada), log=log)
    state = log.load(cells, dataset.evolve)
    assert (state.owner_id, state.grants) == (bob.id, {ada.id: Grant.EDITOR, bob.id: Grant.OWNER})
    with pytest.raises(Forbidden):
        datasets.transfer(cells, user_id=ada.id, command=command(ada), log=log)
    datasets.transfer(cells, user_id=ada.id, command=command(ADMIN), log=log)
    assert datasets.transfer(cells, user_id=ada.id, command=command(ada), log=log).position == 0


def test_only_an_active_analyst_becomes_the_owner(log, ada, cells):
    viewer, suspended = register(actor(Role.VIEWER), log=log), register(actor(), log=log)
    state = log.load(suspended.id, user.evolve)
    log.append(command(ADMIN), *user.change_status(state, Status.SUSPENDED, by=ADMIN.id, at=command().at))
    for refused in (viewer.id, suspended.id, uuid4()):
        with pytest.raises(NotFound, match=r"^User not found: a dataset needs an owner with an active account"):
            datasets.transfer(cells, user_id=refused, command=command(ada), log=log)


def test_who_is_demoted_during_the_transfer_does_not_become_the_owner(log, ada, bob, cells, monkeypatch):
    append = log.append

    def demote_first(*given, **options):
        monkeypatch.setattr(log, "append", append)
        append(command(ADMIN), *user.change_role(log.load(bob.id, user.evolve), Role.VIEWER, by=ADMIN.id, at=command().at))
        return append(*given, **options)

    monkeypatch.setattr(log, "append", demote_first)
    with pytest.raises(NotFound, match="the role analyst"):
        datasets.transfer(cells, user_id=bob.id, command=command(ada), log=log)
    assert log.load(cells, dataset.evolve).owner_id == ada.id


def test_an_image_is_deleted_by_the_owner_of_the_dataset_and_by_its_uploader(log, bob, ada, cells):
    other = register(actor(Role.ANALYST), log=log)
    researcher = register(actor(), log=log)
    for person in (bob, other, researcher):
        datasets.share(cells, user_id=person.id, grant=Grant.EDITOR, command=command(ada), log=log)
    uploaded = [images.upload(dataset_id=cells, **FILE, command=command(bob), log=log).id for _ in range(3)]
    with pytest.raises(Forbidden):
        images.delete(uploaded[0], command=command(other), log=log)
    for person, image_id in zip((bob, researcher, ada), uploaded, strict=True):
        images.delete(image_id, command=command(person), log=log)
    left = images.upload(dataset_id=cells, **FILE, command=command(bob), log=log).id
    datasets.share(cells, user_id=bob.id, grant=Grant.ANALYST, command=command(ada), log=log)
    with pytest.raises(Forbidden):
        images.delete(left, command=command(bob), log=log)
    with pytest.raises(Forbidden):
        images.delete(left, command=command(Actor(id=ada.id, role=Role.VIEWER)), log=log)


def test_an_analyst_deletes_an_own_dataset_and_a_viewer_does_not(log, bob):
    mine = datasets.create(name="cells", description=None, command=command(bob), log=log).id
    with pytest.raises(Forbidden):
        datasets.delete(mine, command=command(Actor(id=bob.id, role=Role.VIEWER)), log=log)
    datasets.delete(mine, command=command(bob), log=log)


def test_members_of_a_team_promote_a_model(log, bob, group):
    version = {"sha256": "ab" * 32, "size": 1, "labels": ("a", "b"), "review_below": 0.5, "record": "{}"}
    add_model(name="cells", **version, command=command(ADMIN), log=log)
    with pytest.raises(Forbidden):
        models.move_alias(name="cells", alias="stable", number=1, reason="Good", command=command(bob), log=log)
    models.add_promoter_team(name="cells", team_id=group, command=command(ADMIN), log=log)
    models.move_alias(name="cells", alias="stable", number=1, reason="Good", command=command(bob), log=log)
    assert [(one.type, one.team_id) for one in models.history("cells", actor=bob, log=log)][-2] == ("ModelPromoterTeamAdded", group)
    models.remove_promoter_team(name="cells", team_id=group, command=command(ADMIN), log=log)
    with pytest.raises(Forbidden):
        models.move_alias(name="cells", alias="other", number=1, reason="Good", command=command(bob), log=log)
    with pytest.raises(NotFound, match="Team"):
        models.add_promoter_team(name="cells", team_id=uuid4(), command=command(ADMIN), log=log)
