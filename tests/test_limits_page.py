"""The limits that docs/api.md tells are those of the settings and the code."""

import re

import msgspec

from infrastructure.configuration.settings import Settings
from scripts.limits import PAGE, ROWS, page

A_LIMIT = re.compile(r"(^|_)(max|per|anonymous|websockets?|connections|seconds)(_|$)")
OF_WORK = re.compile(r"^(inference|chunk|reconcile|live_connections)")  # what our processes take, not what clients may


def test_the_table_is_what_make_limits_writes():
    text = PAGE.read_text()
    assert page(text) == text


def test_every_limit_on_clients_that_can_be_set_is_in_it():
    limits = {field.name for field in msgspec.structs.fields(Settings) if A_LIMIT.search(field.name) and not OF_WORK.search(field.name)}
    assert len(limits) > 15
    assert limits <= set(re.findall(r"{(\w+)}", ROWS))
