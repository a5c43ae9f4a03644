"""The address that the server prints as long as there was no administrator."""

import msgspec
import pytest

from api.cli.setup_address import print_setup_address, setup_address
from domain.access import Role
from infrastructure.security.process_keys import operator_keys

pytestmark = pytest.mark.anyio


async def test_it_leads_to_the_set_up_until_there_is_an_administrator(api, lab_settings):
    keys = operator_keys(lab_settings)
    public = msgspec.structs.replace(lab_settings, public_url="https://lab.example.org/bioscope/")
    assert setup_address(public, keys) == f"https://lab.example.org/bioscope/setup?token={api.services.bootstrap_tokens.token()}"
    api.account(Role.RESEARCHER)
    assert setup_address(public, keys) is not None
    api.account(Role.ADMIN)
    assert setup_address(public, keys) is None


async def test_a_log_file_gets_another_way_without_the_secret(api, lab_settings, tmp_path, monkeypatch):
    with (tmp_path / "api.log").open("w+") as file:
        monkeypatch.setattr("sys.stderr", file)
        print_setup_address(lab_settings, operator_keys(lab_settings))
        file.seek(0)
        written = file.read()
    assert "bioscope users create-admin" in written
    assert "bsb_" not in written
