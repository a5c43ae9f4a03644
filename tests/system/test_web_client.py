"""The calls of the existing web client, as a browser on another origin sends them: without cookies, with a JSON type on every call.

All of them are made twice: where addresses are verified, a person also opens the link of a mail.
"""

import re
import time
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx
import pytest

from api.cli.client.api_client import Client
from tests.rigs.page_visitors import FormVisitor
from tests.rigs.waiting import wait_until
from tests.system.conftest import ORIGIN, PASSWORD, email, made_account

PICTURE = next(iter(sorted((Path(__file__).parents[2] / "examples" / "micrographs").rglob("*.jpg"))))
USER = {"id", "email", "username", "first_name", "last_name", "role", "status", "institution", "department", "phone"}
DATASET = {"id", "name", "description", "owner_username", "created_at"}
IMAGE = {"id", "filename", "analyzed", "dataset_id", "uploaded_by_id", "device_id", "filepath", "uploaded_at"}
JOB = {"id", "dataset_id", "image_id", "model_name", "status", "created_by_id", "created_at", "updated_at"}
RESULT = {"id", "image_id", "classification_id", "label", "confidence", "model_name", "created_at"}


class Browser:
    """Sends what the client sends, a preflight before everything that is not simple, and reads what a browser would let it read."""

    def __init__(self, url):
        self.http = httpx.Client(base_url=url, timeout=20)
        self.token = self.refresh_token = None

    def call(self, method, path, body=None, *, json_type=True, token=None, **more):
        wanted = {"authorization": f"Bearer {token or self.token}"} if token or self.token else {}
        wanted |= {"content-type": "application/json"} if json_type else {}
        preflight = self.http.options(
            path,
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": ", ".join(sorted(wanted)),
            },
        )
        assert preflight.is_success, (path, preflight.status_code)
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert method in preflight.headers["access-control-allow-methods"]
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in wanted)
        answer = self.http.request(method, path, headers={"Origin": ORIGIN, **wanted}, json=body, **more)
        self.http.cookies.clear()
        assert answer.headers["access-control-allow-origin"] == ORIGIN, (method, path, answer.status_code)
        assert "origin" in answer.headers["vary"].lower()
        return answer

    def log_in(self, address):
        answer = self.call("POST", "/api/auth/login", {"email": address, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["token_type"] == "bearer"
        self.token, self.refresh_token = said["access_token"], said["refresh_token"]


@pytest.fixture(scope="module", params=["without verification", pytest.param("with verification", marks=pytest.mark.long)])
def stack(request):
    if request.param == "without verification":
        yield request.getfixturevalue("system").settings
    else:
        with request.getfixturevalue("own_stack")(email_verification="on") as settings:
            yield settings


@pytest.fixture(scope="module")
def admin(stack):
    address = made_account(stack, "admin", email("admin"))
    with Client.sign_in(stack.base_url, address, PASSWORD) as client:
        yield client


def link_of_mail(stack, address):
    """In the newest mail to this address."""
    files = wait_until(lambda: sorted((stack.data / "mail").glob("*.eml")), within=20)
    mails = [message_from_bytes(file.read_bytes(), policy=default) for file in files]
    (mail,) = [mail for mail in mails if mail["To"] == address]
    return re.search(r"http://\S+", mail.get_body(("plain",)).get_content())[0]


def verify_address(stack, browser, address):
    """Until then, the client signs in and shows the user, and every other call says what to do."""
    browser.log_in(address)
    me = browser.call("GET", "/api/users/me")
    assert (me.status_code, me.json()["status"], set(me.json()) >= USER) == (200, "pending", True)
    for method, path in (("GET", "/api/datasets/"), ("GET", "/api/images/"), ("GET", "/api/classifications/")):
        refused = browser.call(method, path)
        assert refused.status_code == 403
        assert "verif" in refused.json()["detail"]
    with FormVisitor() as visitor:
        visitor.open(link_of_mail(stack, address))
        visitor.send("Verify the address", password=PASSWORD)
        assert "Your e-mail address is verified" in visitor.text


@pytest.fixture(scope="module")
def browser(stack, admin):
    """Somebody who registered in the client, and whom an administrator made a researcher."""
    browser = Browser(stack.base_url)
    address = email("web")
    names = {"email": address, "username": address.partition("@")[0], "first_name": "Ada", "last_name": "Byron", "password": PASSWORD}
    answer = browser.call("POST", "/api/auth/register", names)
    assert (answer.status_code, set(answer.json())) == (201, {"id", "email"})
    if stack.email_verification == "on":
        verify_address(stack, browser, address)
    (account,) = admin.get("/api/users/users", q=address)
    admin.call("PATCH", f"/api/users/users/{account['id']}", json={"role": "researcher"})
    browser.log_in(address)
    yield browser
    browser.http.close()


def test_a_login_reads_the_user_at_once(browser):
    me = browser.call("GET", "/api/users/me")
    assert me.status_code == 200
    assert set(me.json()) >= USER
    assert me.json()["first_name"][0] == "A"


def test_a_wrong_login_is_a_sentence(browser):
    answer = browser.call("POST", "/api/auth/login", {"email": "nobody@example.org", "password": PASSWORD})
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid credentials")
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_an_ended_token_is_refreshed_by_bearer_without_cookies(browser):
    refused = browser.call("GET", "/api/users/me", token="not.a.token")
    assert (refused.status_code, refused.json()["detail"]) == (401, "Invalid token")
    answer = browser.call("POST", "/api/auth/refresh", token=browser.refresh_token)
    assert answer.status_code == 200, answer.text
    again = browser.call("POST", "/api/auth/refresh", token=browser.refresh_token)
    assert again.status_code == 200
    assert again.json()["refresh_token"] == answer.json()["refresh_token"]
    browser.token, browser.refresh_token = answer.json()["access_token"], answer.json()["refresh_token"]
    assert browser.call("GET", "/api/users/me").status_code == 200


def test_a_profile_is_saved_with_explicit_nulls(browser):
    me = browser.call("GET", "/api/users/me").json()
    body = {"email": me["email"], "first_name": "Ada", "last_name": "King", "institution": None, "department": None, "phone": None}
    answer = browser.call("PATCH", f"/api/users/users/{me['id']}", body)
    assert (answer.status_code, answer.json()["last_name"]) == (200, "King")
    secret = browser.call("PATCH", f"/api/users/users/{me['id']}", {"password": PASSWORD})
    assert secret.status_code == 200, secret.text


def test_a_dataset_is_made_listed_changed_and_deleted_with_and_without_a_slash(browser):
    made = browser.call("POST", "/api/datasets/", {"name": "slides", "description": ""})
    assert (made.status_code, set(made.json())) == (201, {"id", "name"})
    dataset = made.json()["id"]
    for path in ("/api/datasets/", "/api/datasets", "/api/datasets/?"):
        listed = browser.call("GET", path)
        assert dataset in [one["id"] for one in listed.json()]
        assert set(listed.json()[0]) >= DATASET
    changed = browser.call("PATCH", f"/api/datasets/{dataset}", {"name": "other", "description": "x"})
    assert (changed.status_code, changed.json()["name"]) == (200, "other")
    assert browser.call("DELETE", f"/api/datasets/{dataset}").status_code == 204
    gone = browser.call("GET", f"/api/datasets/{dataset}")
    assert (gone.status_code, gone.json()["detail"]) == (404, "Dataset not found")


def test_the_main_job_as_the_client_does_it(browser):
    dataset = browser.call("POST", "/api/datasets/", {"name": "cells", "description": None}).json()["id"]
    with PICTURE.open("rb") as file:
        uploaded = browser.call(
            "POST", "/api/images/upload", json_type=False, data={"dataset_id": dataset}, files={"file": (PICTURE.name, file, "image/jpeg")}
        )
    assert uploaded.status_code == 201, uploaded.text
    assert set(uploaded.json()) >= {"id", "filename", "analyzed"}
    image = uploaded.json()["id"]
    listed = browser.call("GET", f"/api/images/?dataset_id={dataset}", json_type=False).json()
    assert [one["id"] for one in listed] == [image]
    assert set(listed[0]) >= IMAGE
    preview = browser.call("GET", f"/api/images/{image}/preview", json_type=False).json()
    assert set(preview) >= {"url", "expires_in", "filename"}
    shown = httpx.get(preview["url"], headers={"Origin": ORIGIN})
    assert (shown.status_code, shown.content) == (200, PICTURE.read_bytes())
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
    run = browser.call("POST", "/api/classifications/run", {"image_id": image})
    assert (run.status_code, run.json()["status"]) == (201, "pending")
    jobs = browser.call("GET", "/api/classifications/").json()
    assert set(jobs[0]) >= JOB
    results = wait_until(lambda: browser.call("GET", f"/api/classification-results/image/{image}").json(), within=30)
    assert len(results) == 1
    assert set(results[0]) >= RESULT
    assert browser.call("GET", f"/api/images/{image}").json()["analyzed"] is True
    assert browser.call("GET", f"/api/classification-results/classification/{run.json()['id']}").json() == results
    statistics = browser.call("GET", "/api/classification-results/today/statistics").json()
    assert statistics["last_10_results"][0]["id"] == results[0]["id"]
    assert len({hour["hour"] for hour in statistics["hourly_counts"]}) == 25
    assert browser.call("DELETE", f"/api/images/{image}").status_code == 204
    assert browser.call("GET", f"/api/classification-results/image/{image}").json() == []


def test_devices_are_listed_and_patched_with_a_trailing_slash(browser, admin):
    made = admin.post("/api/devices/", {"name": "Axio", "hostname": f"axio-{time.time_ns()}"})
    assert made["name"] == "Axio"
    assert admin.call("PATCH", f"/api/devices/{made['id']}/", json={"location": "B12"}).json()["location"] == "B12"
    assert made["id"] in [one["id"] for one in browser.call("GET", "/api/devices/").json()]


def test_users_are_listed_by_an_administrator_alone(browser, admin):
    assert len(admin.get("/api/users/users")) >= 2
    assert browser.call("GET", "/api/users/users").status_code == 403


def test_a_logout_needs_the_access_token_alone(browser):
    fresh = Browser(str(browser.http.base_url))
    fresh.log_in(browser.call("GET", "/api/users/me").json()["email"])
    assert fresh.call("POST", "/api/auth/logout").status_code == 204
    assert fresh.call("POST", "/api/auth/refresh", token=fresh.refresh_token).status_code == 401
    fresh.http.close()
