"""Limits of failed sign-ins over HTTP: guessing is slow from any address, and nobody can lock another user out."""

import time
from contextlib import asynccontextmanager
from ipaddress import ip_network

import httpx
import psycopg
import pytest
import redis

from application.limits.sign_in_attempts import SignInLimits, SignInRates
from infrastructure.container import services
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.api.conftest import PASSWORD, ApiWithProjector

pytestmark = pytest.mark.anyio

LOGIN, REFRESH, ME = "/api/auth/login", "/api/auth/refresh", "/api/users/me"
WRONG = "not the password 1"
HOME, ELSEWHERE = "203.0.113.7", "198.51.100.1"
PROXY = (ip_network("127.0.0.1"),)


class Hours:
    """A clock that can be set forward."""

    passed = 0.0

    def __call__(self):
        return time.monotonic() + self.passed * 3600


@asynccontextmanager
async def serving(api, *, limits=None, proxies=PROXY, **rates):
    """A client of an application with the given rates, behind a proxy that says whom a request comes from."""
    given = api.services
    sign_in_limits = SignInLimits(
        limits=limits or given.sign_in_limits.limits, known_addresses=given.sign_in_limits.known_addresses, rates=SignInRates(**rates)
    )
    app = api.with_options(trusted_proxies=proxies).with_services(sign_in_limits=sign_in_limits).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=api.url) as http:
        yield http


async def login(http, email, password=PASSWORD, *, at=ELSEWHERE):
    http.cookies.clear()
    return await http.post(LOGIN, json={"email": email, "password": password}, headers={"X-Forwarded-For": at})


async def statuses(http, email, count, *, password=WRONG, at=ELSEWHERE):
    return [(await login(http, email, password, at=at)).status_code for _ in range(count)]


@pytest.mark.long
async def test_a_thousand_failures_from_elsewhere_lock_no_owner_out_of_a_known_address(api):
    email, hours = api.account(), Hours()
    async with serving(api, limits=LocalRateLimiter(clock=hours)) as http:
        assert (await login(http, email, at=HOME)).status_code == 200
        answers = [(await login(http, email, WRONG, at=f"198.51.100.{n % 250}")).status_code for n in range(1000)]
        assert (answers.count(401), answers.count(429)) == (100, 900), "what all strangers together may try in an hour"
        assert (await login(http, email, at=HOME)).status_code == 200
        refused = await login(http, email, at="192.0.2.9")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
        assert 3000 < int(refused.headers["retry-after"]) <= 3600
        hours.passed = 1.01
        assert (await login(http, email, at="192.0.2.9")).status_code == 200


async def test_an_address_is_not_known_any_more_after_thirty_days(api, owner_url):
    email = api.account()
    async with serving(api, account_per_hour=1) as http:
        assert (await login(http, email, at=HOME)).status_code == 200
        assert await statuses(http, email, 2) == [401, 429]
        assert (await login(http, email, at=HOME)).status_code == 200
        with psycopg.connect(owner_url, autocommit=True) as connection:
            connection.execute("update ops.known_addresses set seen_at = now() - interval '30 days'")
        assert (await login(http, email, at=HOME)).status_code == 429


async def test_five_failures_a_minute_of_one_account_from_one_address(api):
    email, other = api.account(), api.account()
    async with serving(api) as http:
        assert await statuses(http, email, 8) == [401] * 5 + [429] * 3
        assert (await login(http, email.upper())).status_code == 429, "the right password too"
        assert (await login(http, email, at=HOME)).status_code == 200
        assert (await login(http, other)).status_code == 200


async def test_three_hundred_failures_a_minute_of_one_address(api):
    email = api.account()
    async with serving(api, address_per_minute=10) as http:
        answers = [(await login(http, f"nobody{n}@example.org", WRONG)).status_code for n in range(12)]
        assert answers == [401] * 10 + [429] * 2
        assert (await login(http, email)).status_code == 429
        assert (await login(http, email, at=HOME)).status_code == 200
    assert SignInRates() == SignInRates(
        account_and_address_per_minute=5,
        account_per_hour=100,
        address_per_minute=300,
        registrations_per_hour=120,
        mails_per_hour=5,
        mails_per_hour_for_strangers=20,
        user_names_per_hour=10,
    )


async def test_successful_sign_ins_do_not_count(api):
    email = api.account()
    async with serving(api) as http:
        assert await statuses(http, email, 12, password=PASSWORD) == [200] * 12
        assert await statuses(http, email, 6) == [401] * 5 + [429]


async def test_an_unknown_account_is_answered_like_a_known_one(api):
    known = api.account()
    async with serving(api, account_per_hour=7) as http:

        async def answer_for(email):
            answers = [await login(http, email, WRONG, at=f"198.51.100.{n // 6}") for n in range(12)]
            return [(one.status_code, one.json()["detail"].split(";")[0], sorted(one.headers)) for one in answers]

        found = await answer_for(known)
        assert [status for status, *_ in found] == [401] * 5 + [429] + [401] * 2 + [429] * 4
        assert await answer_for("nobody@example.org") == found


async def test_a_stranger_cannot_use_up_the_resets_of_an_owner(api):
    email, log = api.account(), api.services.log
    api = api.with_options(equal_answer_seconds=0)
    async with serving(api, mails_per_hour_for_strangers=2) as http:
        assert (await login(http, email, at=HOME)).status_code == 200
        http.cookies.clear()
        for at in ("198.51.100.4", "198.51.100.5"):  # these send nothing, and count for other mails
            requested = await http.post("/api/auth/verification", json={"email": email}, headers={"X-Forwarded-For": at})
            assert requested.status_code == 202

        async def forgot(at):
            before = log.head()
            answer = await http.post("/api/auth/forgot-password", json={"email": email}, headers={"X-Forwarded-For": at})
            return (answer.status_code, answer.text, tuple(sorted(answer.headers))), log.head() - before

        answers, mails = zip(*[await forgot(at) for at in ("198.51.100.1", "198.51.100.2", "198.51.100.3", HOME)], strict=True)
        assert mails == (1, 1, 0, 1)
        assert len(set(answers)) == 1


async def test_addresses_of_one_ipv6_subnet_count_as_one(api):
    email = api.account()
    async with serving(api) as http:
        answers = [(await login(http, email, WRONG, at=f"2001:db8:0:1::{n:x}")).status_code for n in range(1, 8)]
        assert answers == [401] * 5 + [429] * 2
        assert (await login(http, email, WRONG, at="2001:db8:0:2::1")).status_code == 401
        assert (await login(http, email, at="2001:db8:0:3::1")).status_code == 200
        assert (await login(http, email, at="2001:db8:0:3:ffff::2")).status_code == 200
    async with serving(api, account_per_hour=1) as http:
        assert (await login(http, email, at="2001:db8:0:3::7777")).status_code == 200, "a known subnet"


async def test_without_trusted_proxies_a_forged_header_gives_nobody_another_address(api):
    email = api.account()
    async with serving(api, proxies=()) as http:
        answers = [(await login(http, email, WRONG, at=f"198.51.100.{n}")).status_code for n in range(7)]
        assert answers == [401] * 5 + [429] * 2


async def test_a_wrong_current_password_counts_like_a_failed_sign_in(api):
    email = api.account()
    async with serving(api) as http:
        token = (await login(http, email)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": ELSEWHERE}
        me = (await http.get(ME, headers=headers)).json()["id"]
        body = {"password": "another horse battery 9", "current_password": WRONG}
        assert [(await http.patch(f"/api/users/users/{me}", json=body, headers=headers)).status_code for _ in range(3)] == [403] * 3
        assert await statuses(http, email, 3) == [401] * 2 + [429]
        refused = await http.patch(f"/api/users/users/{me}", json=body | {"current_password": PASSWORD}, headers=headers)
        assert refused.status_code == 429
        assert [(await http.get(ME, headers=headers)).status_code for _ in range(20)] == [200] * 20, "never throttled"


async def test_refused_refresh_tokens_are_limited_and_right_ones_are_not(api):
    email = api.account()
    async with serving(api, address_per_minute=4) as http:
        token = (await login(http, email)).json()["refresh_token"]
        http.cookies.clear()
        headers = {"X-Forwarded-For": ELSEWHERE}
        tries = [await http.post(REFRESH, json={"refresh_token": f"guess{n}"}, headers=headers) for n in range(6)]
        assert [one.status_code for one in tries] == [401] * 4 + [429] * 2
        assert (await http.post(REFRESH, json={"refresh_token": token}, headers=headers)).status_code == 200
        assert (await login(http, email)).status_code == 200


async def test_a_registration_counts_whether_its_address_is_taken_or_not(api):
    accepted = api.account()
    names = {"first_name": "Ada", "last_name": "Byron", "password": PASSWORD}

    async def registered(http, email, number):
        body = names | {"email": email, "username": f"new{number}"}
        return (await http.post("/api/auth/register", json=body, headers={"X-Forwarded-For": ELSEWHERE})).status_code

    async with serving(api, registrations_per_hour=4) as http:
        expected = [accepted, "new1@example.org", accepted, "new3@example.org", accepted, "new5@example.org"]
        answers = [await registered(http, email, number) for number, email in enumerate(expected)]
        assert answers == [409, 201, 409, 201, 429, 429]


async def test_neither_a_new_redis_nor_a_new_api_opens_the_door_again(api_of_argon2, lab_settings):
    email = api_of_argon2.account()
    async with serving(api_of_argon2, account_per_hour=7) as http:
        assert (await login(http, email, at=HOME)).status_code == 200
        assert await statuses(http, email, 5) == [401] * 5
        with redis.Redis.from_url(lab_settings.redis_url) as client:
            client.flushall()
        assert await statuses(http, email, 2) == [429] * 2, "the process counted too"
        assert await statuses(http, email, 3, at="192.0.2.1") == [401] * 2 + [429], "also those of an hour"
    anew = services(lab_settings)
    async with anew.lifespan(), serving(ApiWithProjector(anew, api_of_argon2.options), account_per_hour=2) as http:
        assert await statuses(http, email, 1, at="192.0.2.2") == [429], "Redis counted too"
        assert (await login(http, email, at=HOME)).status_code == 200, "the database knows the address"
