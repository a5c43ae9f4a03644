"""Accounts over HTTP: who may see and change them, and how soon a change takes effect."""

import asyncio
from uuid import uuid4

import pytest

from application import accounts
from application.passwords import NewPassword
from application.ports import Command
from domain.access import Actor, Role
from domain.errors import Forbidden
from domain.user import PasswordChanged, UserProfileChanged, UserRoleChanged, UserStatusChanged
from tests.api.conftest import PASSWORD
from tests.given import NOW

pytestmark = pytest.mark.anyio

ME, USERS = "/api/users/me", "/api/users/users"
FIELDS = {"id", "email", "username", "first_name", "last_name", "role", "status", "institution", "department", "phone", "pending_email"}
OTHER_PASSWORD = "another horse battery 9"


async def someone(api, role="researcher"):
    """Somebody new, signed in, and the address of their account."""
    http = await api.client(role)
    return http, f"{USERS}/{(await http.get(ME)).json()['id']}"


async def login(api, address, password=PASSWORD):
    return await api.anonymous().post("/api/auth/login", json={"email": address, "password": password})


def kinds_of(api, path):
    return [one.type for one in api.services.log.history(path.rpartition("/")[2])]


# ---- reading -----------------------------------------------------------------------------------------------------------------------
async def test_everybody_reads_themselves_as_the_contract_says(api):
    for role in Role:
        http, mine = await someone(api, role)
        me = await http.get(ME)
        assert (me.status_code, set(me.json())) == (200, FIELDS)
        assert (me.json()["role"], me.json()["status"], me.json()["phone"]) == (role, "active", None)
        assert me.headers["etag"] == '"1"'
        assert (await http.get(mine, params={"min_position": api.services.log.head()})).json() == me.json()


async def test_only_administrators_list_and_read_others(api):
    admin, _ = await someone(api, "admin")
    http, mine = await someone(api)
    _, others = await someone(api)
    for path in (USERS, f"{USERS}/", f"{USERS}?"):
        listed = await admin.get(path, params={"min_position": api.services.log.head()})
        assert listed.status_code == 200
        assert len(listed.json()) == 3
        assert {frozenset(user) for user in listed.json()} == {frozenset(FIELDS)}
        assert (await http.get(path)).status_code == 403
    foreign, absent = await http.get(others), await http.get(f"{USERS}/{uuid4()}")
    assert (foreign.status_code, absent.status_code) == (404, 404)
    assert foreign.json()["detail"] == absent.json()["detail"] == "User not found"
    assert (await admin.get(mine)).status_code == 200


async def test_the_list_goes_on_where_a_page_ends(api):
    admin, _ = await someone(api, "admin")
    for _ in range(4):
        api.account()
    await admin.patch(
        ME.replace("me", f"users/{(await admin.get(ME)).json()['id']}"), json={"phone": "1"}
    )  # all before it can be read then
    observed, path = [], f"{USERS}?page_size=2"
    while path:
        page = await admin.get(path)
        observed += [user["id"] for user in page.json()]
        path = page.links.get("next", {}).get("url")
    assert (len(observed), len(set(observed))) == (5, 5)
    assert (await admin.get(f"{USERS}?cursor=nonsense")).status_code == 422


# ---- profile -----------------------------------------------------------------------------------------------------------------------
async def test_a_profile_is_changed_and_cleared_by_nulls(api):
    http, mine = await someone(api)
    body = {"first_name": "Augusta", "institution": "Analytical", "department": "Engines", "phone": "+44 1"}
    changed = await http.patch(mine, json=body)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert body.items() <= changed.json().items()
    assert set(changed.json()) == FIELDS
    cleared = (await http.patch(f"{mine}/", json={"institution": None, "department": None, "phone": None})).json()
    assert (cleared["institution"], cleared["department"], cleared["phone"], cleared["first_name"]) == (None, None, None, "Augusta")
    assert (await http.get(mine)).json() == cleared == (await http.get(ME)).json()


async def test_nulls_of_what_cannot_be_empty_change_nothing(api):
    http, mine = await someone(api)
    before = (await http.get(ME)).json()
    nothing = dict.fromkeys(("email", "first_name", "last_name", "password", "current_password", "role", "status"))
    for body in (nothing, {}):
        answer = await http.patch(mine, json=body)
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, before, '"1"')
    for field in ("email", "first_name", "last_name", "password"):
        refused = await http.patch(mine, json={field: ""})
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", field])


async def test_an_address_that_moved_signs_in_and_the_old_one_is_free(api):
    http, mine = await someone(api)
    old = (await http.get(ME)).json()["email"]
    accepted = await http.patch(mine, json={"email": api.account()})
    assert (accepted.status_code, accepted.json()["detail"]) == (409, "Email already registered")
    assert (await http.patch(mine, json={"email": "new@example.org"})).json()["email"] == "new@example.org"
    assert (await login(api, "new@example.org")).status_code == 200
    assert (await login(api, old)).status_code == 401
    free = {"email": old, "username": "another", "first_name": "A", "last_name": "B", "password": PASSWORD}
    assert (await api.anonymous().post("/api/auth/register", json=free)).status_code == 201


async def test_a_profile_guarded_by_its_version_is_not_overwritten(api):
    http, mine = await someone(api)
    assert (await http.patch(mine, json={"phone": "1"}, headers={"If-Match": '"1"'})).status_code == 200
    late = await http.patch(mine, json={"phone": "2"}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "version_mismatch")
    assert (await http.get(ME)).json()["phone"] == "1"


# ---- rights ------------------------------------------------------------------------------------------------------------------------
async def test_what_only_administrators_may_is_refused_in_the_contracts_words(api):
    http, mine = await someone(api)
    _, others = await someone(api)
    admin, _ = await someone(api, "admin")
    for client, path, body, detail in (
        (http, others, {"first_name": "Eve"}, "Only admins can update other users"),
        (http, f"{USERS}/{uuid4()}", {"first_name": "Eve"}, "Only admins can update other users"),
        (http, mine, {"role": "admin"}, "Only admins can update role and status"),
        (http, mine, {"status": "active", "phone": "1"}, "Only admins can update role and status"),
        (http, mine, {"password": "", "current_password": "wrong"}, "The current password is wrong"),
        (admin, mine, {"password": ""}, "You can only change your own password"),
        (admin, mine, {"password": OTHER_PASSWORD}, "You can only change your own password"),
        (admin, mine, {"password": OTHER_PASSWORD, "role": "analyst", "phone": "1"}, "You can only change your own password"),
    ):
        refused = await client.patch(path, json=body)
        assert (refused.status_code, refused.json()["detail"]) == (403, detail)
    assert kinds_of(api, mine) == ["UserRegistered"]
    assert (await admin.patch(f"{USERS}/{uuid4()}", json={"phone": "1"})).status_code == 404
    wrong = await admin.patch(mine, json={"role": "owner"})
    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["body", "role"])


async def test_several_parts_change_together_or_not_at_all(api):
    admin, _ = await someone(api, "admin")
    _, path = await someone(api)
    refused = await admin.patch(path, json={"role": "analyst", "status": "inactive", "email": api.account()})
    assert refused.status_code == 409
    assert (await admin.patch(path, json={"role": "analyst", "phone": "1" * 21})).status_code == 422
    assert kinds_of(api, path) == ["UserRegistered"]
    changed = await admin.patch(path, json={"role": "analyst", "status": "inactive", "phone": "1"})
    assert (changed.status_code, changed.json()["role"], changed.json()["status"], changed.json()["phone"]) == (
        200,
        "analyst",
        "inactive",
        "1",
    )
    kinds = [UserProfileChanged, UserRoleChanged, UserStatusChanged]
    assert kinds_of(api, path) == ["UserRegistered", *(kind.__name__ for kind in kinds)]
    assert changed.headers["etag"] == '"4"'


# ---- bites at once -----------------------------------------------------------------------------------------------------------------
async def test_another_role_bites_at_once(api):
    admin, _ = await someone(api, "admin")
    http, mine = await someone(api, "viewer")
    assert (await http.post("/api/datasets", json={"name": "slides"})).status_code == 403
    for role, status in (("analyst", 201), ("viewer", 403), ("admin", 201)):
        assert (await admin.patch(mine, json={"role": role})).status_code == 200
        assert (await http.post("/api/datasets", json={"name": "slides"})).status_code == status
    assert (await http.get(USERS)).status_code == 200


async def test_a_disabled_user_is_signed_out_at_once(api):
    admin, _ = await someone(api, "admin")
    address = api.account()
    for status in ("inactive", "suspended", "pending"):
        body = (await login(api, address)).json()
        http = api.anonymous(Authorization=f"Bearer {body['access_token']}")
        mine = f"{USERS}/{(await http.get(ME)).json()['id']}"
        assert (await admin.patch(mine, json={"status": status})).json()["status"] == status
        assert (await http.get(ME)).status_code == 401
        assert (await api.anonymous().post("/api/auth/refresh", json={"refresh_token": body["refresh_token"]})).status_code == 401
        assert (await login(api, address)).json()["detail"] == "Invalid credentials"
        assert (await admin.patch(mine, json={"status": "active"})).status_code == 200
        assert (await http.get(ME)).status_code == 401, "a session that ended stays ended"
        assert (await login(api, address)).status_code == 200


async def test_a_disabled_user_gets_that_reason_while_the_session_lasts(api):
    http, mine = await someone(api)
    user_id = mine.rpartition("/")[2]
    services = api.services
    changed = accounts.user.change_status(accounts.load_account(services.log, user_id), accounts.Status.SUSPENDED, by=uuid4(), at=NOW)
    services.log.append(Command(id=uuid4(), actor=Actor(id=uuid4(), kind="system"), at=NOW), *changed)
    another_process = api.with_options().anonymous(Authorization=http.headers["Authorization"])
    answer = await another_process.get(ME)
    assert (answer.status_code, answer.json()["detail"]) == (401, "User disabled")


async def test_an_account_is_closed_once_and_its_names_are_free(api):
    admin, own = await someone(api, "admin")
    http, mine = await someone(api)
    me = (await http.get(ME)).json()
    refused = await http.delete(mine)
    assert (refused.status_code, (await http.delete(f"{USERS}/{uuid4()}")).status_code) == (403, 403)
    assert (await admin.delete(mine)).status_code == 204
    assert (await http.get(ME)).status_code == 401
    for again in (mine, f"{USERS}/{uuid4()}"):
        assert (await admin.delete(again)).status_code == 204
    assert (await admin.get(mine)).status_code == 404
    assert (await admin.patch(mine, json={"status": "active"})).status_code == 404
    assert (await admin.delete(own)).json()["code"] == "conflict"
    names = {name: me[name] for name in ("email", "username", "first_name", "last_name")}
    assert (await api.anonymous().post("/api/auth/register", json=names | {"password": PASSWORD})).status_code == 201


async def test_the_last_active_administrator_is_kept_by_every_route(api):
    admin, own = await someone(api, "admin")
    _, others = await someone(api, "admin")
    assert (await admin.patch(others, json={"status": "suspended"})).status_code == 200
    for change in (
        {"role": "analyst"},
        {"status": "suspended"},
        {"status": "inactive", "phone": "1"},
        {"role": "viewer", "status": "active"},
    ):
        refused = await admin.patch(own, json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "last_administrator")
        assert refused.json()["detail"] == "This is the last active administrator: make another user an administrator first"
    assert kinds_of(api, own) == ["UserRegistered"]
    assert (await admin.patch(others, json={"status": "active"})).status_code == 200
    assert (await admin.patch(own, json={"role": "analyst"})).status_code == 200


async def test_two_administrators_who_demote_each_other_at_once_leave_one(api):
    (one, ones), (two, twos) = await someone(api, "admin"), await someone(api, "admin")
    answers = await asyncio.gather(one.patch(twos, json={"role": "viewer"}), two.patch(ones, json={"role": "viewer"}))
    assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])
    remaining, lost = (one, two) if answers[0].status_code == 200 else (two, one)
    assert ((await remaining.get(USERS)).status_code, (await lost.get(USERS)).status_code) == (200, 403)


# ---- passwords ---------------------------------------------------------------------------------------------------------------------
async def test_a_new_password_ends_all_other_sessions_at_once(api):
    http, mine = await someone(api)
    address = (await http.get(ME)).json()["email"]
    elsewhere = await api.signed_in(address)
    assert (await elsewhere.get(ME)).status_code == 200
    assert (await http.patch(mine, json={"password": OTHER_PASSWORD})).status_code == 200
    assert (await elsewhere.get(ME)).status_code == 401
    assert (await http.get(ME)).status_code == 200
    assert (await login(api, address)).status_code == 401
    assert (await login(api, address, OTHER_PASSWORD)).status_code == 200
    assert kinds_of(api, mine) == ["UserRegistered", PasswordChanged.__name__]


async def test_no_sign_in_with_the_old_password_survives_a_new_one_however_close_they_are(api):
    http, mine = await someone(api)
    address = (await http.get(ME)).json()["email"]
    signing_in = [asyncio.create_task(login(api, address)) for _ in range(12)]
    await asyncio.wait(signing_in, return_when=asyncio.FIRST_COMPLETED)
    assert (await http.patch(mine, json={"password": OTHER_PASSWORD})).status_code == 200
    answers = await asyncio.gather(*signing_in)
    statuses = [answer.status_code for answer in answers]
    assert 200 in statuses, "the first was answered before the change"
    assert set(statuses) <= {200, 401}
    for body in (answer.json() for answer in answers if answer.status_code == 200):
        anonymous = api.anonymous()
        assert (await anonymous.get(ME, headers={"Authorization": f"Bearer {body['access_token']}"})).status_code == 401
        assert (await anonymous.post("/api/auth/refresh", json={"refresh_token": body["refresh_token"]})).status_code == 401
    assert (await http.get(ME)).status_code == 200


async def test_a_new_password_keeps_the_rule_and_is_never_echoed(api):
    http, mine = await someone(api)
    for password in ("short", "passwordpassword", "x" * 129):
        refused = await http.patch(mine, json={"password": password, "phone": "1"})
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "password"])
        assert password not in refused.text
    wrong = await http.patch(mine, json={"password": OTHER_PASSWORD, "current_password": "not the password 1"})
    assert (wrong.status_code, wrong.json()["detail"]) == (403, "The current password is wrong")
    assert kinds_of(api, mine) == ["UserRegistered"]
    right = await http.patch(mine, json={"password": OTHER_PASSWORD, "current_password": PASSWORD})
    assert right.status_code == 200


async def test_an_old_sign_in_needs_the_current_password(api):
    _, mine = await someone(api)
    user_id = mine.rpartition("/")[2]
    given = api.services
    ports = {"log": given.log, "passwords": given.passwords, "tokens": given.refresh_tokens, "sign_in_limits": given.sign_in_limits}
    me = Actor(id=accounts.load_account(given.log, user_id).id, role=Role.RESEARCHER)

    def change(**expected):
        password = NewPassword(password=OTHER_PASSWORD, signed_in_for=901, **expected)
        return accounts.update(me.id, profile={}, password=password, command=Command(id=uuid4(), actor=me, at=NOW), **ports)

    with pytest.raises(Forbidden, match="sign in again"):
        change()
    assert change(current=PASSWORD).version == 2


async def test_of_changes_at_the_same_time_none_is_lost(api):
    admin, _ = await someone(api, "admin")
    http, mine = await someone(api)
    answers = await asyncio.gather(
        http.patch(mine, json={"phone": "1"}),
        admin.patch(mine, json={"institution": "Analytical"}),
        admin.patch(mine, json={"role": "analyst"}),
        http.patch(mine, json={"department": "Engines"}),
    )
    assert {answer.status_code for answer in answers} == {200}
    me = (await http.get(ME)).json()
    assert (me["phone"], me["institution"], me["role"], me["department"]) == ("1", "Analytical", "analyst", "Engines")
