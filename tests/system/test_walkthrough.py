"""The walkthrough in examples/ against the whole system: it works, and calls every route."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from api.documents import openapi
from tests.system.conftest import PASSWORD, email, made_account

SCRIPT = Path(__file__).parents[2] / "examples" / "walkthrough.sh"


@pytest.fixture(scope="module")
def walked(stack):
    """What the script told."""
    address = made_account(stack, "admin", email("walker"))
    variables = {"BIOSCOPE_URL": stack.base_url, "BIOSCOPE_ADMIN_EMAIL": address, "BIOSCOPE_ADMIN_PASSWORD": PASSWORD}
    return subprocess.run([SCRIPT], env=os.environ | variables, capture_output=True, text=True, check=False, timeout=180)


def test_it_comes_to_its_end(walked):
    assert walked.returncode == 0, walked.stderr[-3000:] + walked.stdout[-2000:]
    assert "== Done" in walked.stderr


def test_it_goes_through_every_route(walked):
    called = {(method, path) for method, path in re.findall(r"^   (GET|POST|PUT|PATCH|DELETE) (/[^?,\s]*)", walked.stderr, re.MULTILINE)}
    for path, methods in openapi.document()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for method in methods:
            assert any(pattern.fullmatch(found) for verb, found in called if verb == method.upper()), f"{method.upper()} {path}"
