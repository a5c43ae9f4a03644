"""Devices in plain words, from what clients say of themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import ERASED
from domain.user_agent import UNKNOWN, device_of

WINDOWS, MAC, LINUX = "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64"


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (f"Mozilla/5.0 ({WINDOWS}; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Windows"),
        (f"Mozilla/5.0 ({LINUX}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36", "Chrome on Linux"),
        (f"Mozilla/5.0 ({WINDOWS}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0", "Edge on Windows"),
        (f"Mozilla/5.0 ({WINDOWS}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 OPR/120.0", "Opera on Windows"),
        (f"Mozilla/5.0 ({MAC}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15", "Safari on macOS"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) Version/18.0 Mobile Safari/604.1",
            "Safari on iPhone",
        ),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Mobile Safari/537.36", "Chrome on Android"),
        ("bioscope/0.1.0 (Linux)", "bioscope command line on Linux"),
        ("bioscope/0.1.0 (Darwin)", "bioscope command line on macOS"),
        ("bioscope", "bioscope command line"),
        ("python-httpx/0.28.1", "Python program"),
        ("curl/8.5.0", "curl"),
        ("Windows", "Windows"),
        ("", UNKNOWN),
        ("a microscope", UNKNOWN),
        (ERASED, ERASED),
    ],
)
def test_a_device_is_named_in_plain_words(agent, device):
    assert device_of(agent) == device


@given(st.text(max_size=256))
def test_nothing_that_a_client_sends_is_repeated(agent):
    known = device_of(agent)
    assert known == UNKNOWN or known.isascii()
    assert len(known) < 50
