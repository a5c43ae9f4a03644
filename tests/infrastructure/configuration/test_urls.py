"""URLs as they are shown: without anything that may be secret."""

import pytest

from infrastructure.configuration.urls import HIDDEN, shown_origin


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://canary@example.org", "https://example.org"),
        ("https://ada:canary@example.org:8443/path", "https://example.org:8443"),
        ("https://ada:c@nary@example.org", "https://example.org"),
        ("https://example.org?token=canary", "https://example.org"),
        ("https://example.org/canary#canary", "https://example.org"),
        ("https://[::1]:8000/canary", "https://[::1]:8000"),
        ("ada:canary@example.org", HIDDEN),
        ("/data/folder", "/data/folder"),
    ],
)
def test_only_scheme_host_and_port_of_a_url_are_shown(url, shown):
    assert shown_origin(url) == shown
