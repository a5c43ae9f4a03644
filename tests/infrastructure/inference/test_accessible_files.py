"""The files that the inference process can open, wherever secrets and data lie."""

import sys
from pathlib import Path

import msgspec
import pytest

from infrastructure.configuration.settings import Settings
from infrastructure.inference import accessible_files
from infrastructure.inference.accessible_files import inference_rules, without
from infrastructure.sandbox.landlock import Rights

CONTENT = Rights.READ_FILE | Rights.WRITE_FILE


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """The rules choose one for the whole process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(accessible_files.tempfile, "tempdir", str(tmp_path))


def opened(given, path, rights=CONTENT, *, prefix=sys.prefix, **environment):
    """Whether a rule gives any of `rights` on `path`."""
    rules = inference_rules(given, environment, prefixes=[prefix])
    return any(rule.rights & rights and path.is_relative_to(rule.path) for rule in rules)


def test_a_folder_without_secrets_is_taken_whole(tmp_path):
    assert list(without([Path("/elsewhere")], tmp_path)) == [tmp_path]


def test_beside_a_secret_everything_else_is_taken_but_links(tmp_path):
    for folder in ("lib", "share/data/keys", "share/docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("/")
    assert set(without([tmp_path / "share" / "data"], tmp_path)) == {tmp_path / "lib", tmp_path / "share" / "docs"}
    assert list(without([tmp_path], tmp_path)) == []


def test_a_data_folder_among_pythons_own_is_closed(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "data" / "keys").mkdir(parents=True)
    given = Settings(data=tmp_path / "data")
    assert opened(given, tmp_path / "lib" / "module.py", prefix=tmp_path)
    assert not opened(given, given.root_key_path, prefix=tmp_path)
    assert not opened(given, tmp_path / "data" / "postgres" / "PG_VERSION", prefix=tmp_path)


def test_a_root_key_that_lies_elsewhere_is_closed_too(tmp_path):
    (tmp_path / "root.key").write_text("secret")
    given = Settings(data=tmp_path / "data", root_key_file=tmp_path / "root.key")
    assert not opened(given, tmp_path / "root.key", prefix=tmp_path)


def test_of_a_checkout_only_the_packages_are_read():
    checkout = accessible_files.CODE
    assert opened(Settings(), checkout / "infrastructure" / "inference" / "worker.py")
    assert not opened(Settings(), checkout / "secrets" / "root.key")
    assert not opened(Settings(), checkout / ".env")


def test_originals_are_read_and_pictures_written(tmp_path):
    given = Settings(data=tmp_path / "data", blobs_url=str(tmp_path / "share"))
    blobs = tmp_path / "share"
    assert opened(given, blobs / "sha256" / "ab", Rights.READ_FILE)
    assert not opened(given, blobs / "sha256" / "ab", Rights.WRITE_FILE | Rights.MAKE_REG | Rights.REMOVE_FILE | Rights.TRUNCATE)
    for folder in ("derived/thumbnail", "derived/preview", "pictures"):
        assert opened(given, blobs / folder / "ab", Rights.WRITE_FILE)
    for folder in ("derived/heads", "uploads"):
        assert not opened(given, blobs / folder / "ab")


def test_on_s3_nothing_is_written_but_what_is_sent(tmp_path):
    given = Settings(data=tmp_path / "data", blobs_url="s3://bucket")
    assert opened(given, given.spool_path / "pictures" / "ab", Rights.WRITE_FILE)
    assert not opened(given, given.spool_path / "upload-ab")
    assert not opened(given, given.data / "blobs" / "sha256" / "ab")


@pytest.mark.parametrize("parameter", ["sslrootcert", "sslkey", "passfile"])
def test_files_that_the_database_url_names_are_read(tmp_path, parameter):
    url = f"postgresql://user@server/bioscope?{parameter}={tmp_path}/named"
    assert opened(Settings(postgres_url=url), tmp_path / "named", Rights.READ_FILE)
    assert not opened(Settings(), tmp_path / "named")


def test_files_that_variables_and_settings_name_are_read(tmp_path):
    given = msgspec.structs.replace(Settings(), metrics_token_file=str(tmp_path / "token"))
    assert opened(given, tmp_path / "token")
    assert opened(Settings(), tmp_path / "ca.pem", SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert opened(Settings(), tmp_path / "web" / "replaced", AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "web" / "token"))
    assert not opened(Settings(), tmp_path / "token")
