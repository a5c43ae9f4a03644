"""Log lines: one for each event, in UTC, without secrets."""

import json
import os
import pty
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.observability.log_setup import HARMLESS, MAX_TEXT_CHARACTERS, PATTERNS, REDACTED, redact, redacted

SPEAKER = """
import logging, sys, threading, warnings
import structlog
from infrastructure.configuration.settings import Settings
from infrastructure.observability.log_setup import configure_logging

log = structlog.get_logger()
configure_logging(Settings(log_json="json" in sys.argv), "relay")
log.info("plain", position=7, password="hunter2 hunter2")
log.debug("quiet")
logging.getLogger("aiokafka.cluster").warning("topic %s\\r\\nforged line", "x")
logging.getLogger("aiokafka").debug("quiet")
try:
    raise ValueError("token=abcdefgh")
except ValueError:
    log.exception("failed")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
warnings.warn("old")
raise RuntimeError("the end")
"""


@pytest.fixture(scope="module")
def said():
    done = subprocess.run(
        [sys.executable, "-c", SPEAKER, "json"], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_line_is_one_json_object_with_time_process_and_level(said):
    assert [line["level"] for line in said] == ["info", "warning", "error", "error", "warning", "critical"]
    assert {line["process"] for line in said} == {"relay"}
    for line in said:
        assert line["time"].endswith("Z")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60


def test_lines_of_libraries_come_the_same_way_and_cannot_be_forged(said):
    assert said[1] | {"time": 0} == {
        "time": 0, "process": "relay", "level": "warning", "logger": "aiokafka.cluster", "event": "topic x\\r\\nforged line",
    }  # fmt: skip
    assert said[4]["logger"] == "py.warnings"


def test_secrets_are_kept_out_of_members_and_tracebacks(said):
    assert said[0]["password"] == REDACTED
    assert said[0]["position"] == 7
    assert "ValueError" in said[2]["exception"]
    assert "abcdefgh" not in json.dumps(said[2])


def test_what_ends_a_thread_or_the_process_is_logged(said):
    assert said[3]["thread"] == "worker"
    assert "ZeroDivisionError" in said[3]["exception"]
    assert "the end" in said[5]["exception"]


def test_at_a_terminal_it_is_written_for_people():
    ours, theirs = pty.openpty()
    speaker = subprocess.Popen([sys.executable, "-c", SPEAKER], stderr=theirs, cwd=Path(__file__).parents[3])
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # its end
        pass
    speaker.wait()
    os.close(ours)
    assert b"plain" in seen
    assert b"{" not in seen.splitlines()[0]
    assert b"hunter2" not in seen


@pytest.mark.parametrize(
    "key",
    [
        "authorization", "Authorization", "cookie", "Set-Cookie", "password", "new_password", "passwd", "passphrase", "secret",
        "client_secret", "token", "access_token", "refresh-token", "api_key", "X-Api-Key", "apikey", "private_key", "signature",
        "credentials", "email",
        "first_name", "phone",
    ],
)  # fmt: skip
def test_a_member_with_a_telling_name_is_redacted_at_any_depth(key):
    line = redact(None, "info", {"event": "e", key: "canary", "a": {"b": [{key: {"c": "canary"}}]}})
    assert "canary" not in str(line)
    assert line["event"] == "e"


JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"
REFRESH = "f7Yw2VqkX1c9tRz0LmN4pBsD8aJhGe3oUiKx6Q5vWbE"
CHILD = "k3Tz" + REFRESH + "0"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {JWT}", "eyJ"),
        ("header 'bearer canary-canary'", "canary"),
        ("Basic Y2FuYXJ5OmNhbmFyeQ==", "Y2Fu"),
        (f"got {JWT}!", "eyJ"),
        (f"got {JWT[:30]}", "eyJ"),
        ("GET /b/k?X-Amz-Credential=canary%2F1&X-Amz-Date=1&X-Amz-Signature=canary&response-x=1", "canary"),
        ("https://objects/x?AWSAccessKeyId=canary&Signature=canary%3D&Expires=1", "canary"),
        ("http://127.0.0.1:8000/api/blobs/canaryCANARYcanary0123-_", "canary"),
        ("http://127.0.0.1:8000/api/blobs/2.canaryCANARYcanary0123-_", "canary"),
        ("postgresql://bioscope_app:canary@postgres:5432/bioscope", "canary"),
        ("redis://:canary@redis:6379/0", "canary"),
        ("connection failed: host=x password=canary user=y", "canary"),
        ('{"password": "canary canary"}', "canary"),
        ("secret: 'canary canary'", "canary"),
        ("the key bsk_canaryAbCdEf-_0123456789 was refused", "canary"),
        ("bsk_canaryAbCdEf", "canary"),
        ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$canary", "canary"),
        (f"refresh {REFRESH} was used", REFRESH),
        (f"refresh {CHILD} was used", CHILD),
        ("Key (email)=(canary@example.org) already exists", "canary"),
    ],
)
def test_what_looks_like_a_secret_is_redacted_wherever_it_stands(text, secret):
    assert secret not in redacted(text)
    assert secret not in str(redact(None, "info", {"event": text, "exception": text, "nested": [{"x": text}]}))


@pytest.mark.parametrize(
    "text",
    [
        "request", "/api/images/{image_id}/preview", "3f2b8c9a-0000-4000-8000-000000000001", "sha256 " + "ab12" * 16, "cells 1.tif",
        "2026-03-01T12:00:00Z", "a basic idea", "the bearer of bad news", "the token is missing",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["a", "eyJ-", "a.", "eyJ.", "password ", "://", "bearer ", "x=", '"', "&sig", "$argon2", "-", "a@", "aA1"])
def test_redaction_takes_time_in_proportion_to_the_text(part):
    """Eight times the text would take 64 times as long with a pattern that starts anew at each character."""

    def seconds(characters):
        text = part * (characters // len(part))
        began = time.thread_time()
        redacted(text)
        return time.thread_time() - began

    short, long = (min(seconds(characters) for _ in range(3)) for characters in (MAX_TEXT_CHARACTERS // 8, MAX_TEXT_CHARACTERS))
    assert long < 32 * short


def test_a_long_text_is_shortened_before_it_is_redacted():
    line = redact(None, "info", {"event": "x" * (MAX_TEXT_CHARACTERS + 1)})
    assert line == {"event": "x" * MAX_TEXT_CHARACTERS}


def test_the_request_line_of_the_api_stays_readable():
    line = {"event": "request", "method": "GET", "route": "/api/auth/login", "status": 200, "ms": 1.5, "request_id": "a" * 32, "user": None}
    assert redact(None, "info", dict(line)) == line


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), ANYTHING, max_size=5))
def test_whatever_is_logged_is_one_line_of_json(line):
    text = msgspec.json.encode(redact(None, "info", line)).decode()
    assert len(text.splitlines()) == 1
    json.loads(text)


def test_a_full_disk_loses_lines_and_stops_no_work():
    work = """
import sys, logging, structlog
from infrastructure.configuration.settings import Settings
from infrastructure.observability.log_setup import configure_logging
configure_logging(Settings(log_json=True), "api")
for _ in range(1000):
    structlog.get_logger().warning("said")
    logging.getLogger("library").warning("said too")
print("done")
sys.stdout.flush()
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", work], check=False, stdout=subprocess.PIPE, stderr=full, text=True, cwd=Path(__file__).parents[3]
        )
    assert done.stdout == "done\n"


@given(st.from_regex(HARMLESS, fullmatch=True) | st.text("eyJAbearerbasic-token0_$secret", max_size=42))
def test_a_word_that_is_taken_for_harmless_holds_nothing_that_looks_like_a_secret(word):
    assert HARMLESS.fullmatch(word) is None or not any(pattern.search(word) for pattern, _ in PATTERNS)
