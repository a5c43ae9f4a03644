"""The options of the web layer follow from the settings."""

from api.cli.web_options import web_options
from infrastructure.configuration.settings import Settings


def test_cookies_are_secure_when_the_world_reaches_us_by_tls():
    assert web_options(Settings(public_url="https://lab.example.org/")).secure_cookies
    assert web_options(Settings(public_url="https://lab.example.org/")).base_url == "https://lab.example.org"
    assert not web_options(Settings()).secure_cookies
