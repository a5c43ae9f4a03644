"""The doctor: it names weaknesses and remedies, and production does not start with severe ones."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import pytest
import yaml
from psycopg.types.json import Jsonb

from domain.access import Role
from infrastructure.atomic_files import write_private
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings, load
from infrastructure.embedded.installation import environment
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.inference.models import bundled
from infrastructure.inference.models.bundled import bundled_manifests, models
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.kafka.topics import create_topics
from infrastructure.operations.config_checks import disk_space_finding, machine_findings, setting_findings
from infrastructure.operations.doctor import _topic_durability, examine, refusals
from infrastructure.security.key_ring import NO_KEYS
from infrastructure.security.keys import RootKey, new_root_key
from infrastructure.security.process_keys import write_key_file
from tests.given import actor, add_model, command
from tests.rigs.smtp_server import SmtpRig

ROOT = Path(__file__).parents[3]
GOOD = Settings(
    environment="production",
    password_strength="production",
    public_url="https://lab.example.org",
    postgres_url="postgresql://bioscope_app:long-and-random@postgres:5432/bioscope",
    kafka_url="kafka:9092",
    redis_url="redis://redis:6379/0",
    blobs_url="s3://bioscope",
    blobs_public_endpoint="https://objects.example.org",
    blobs_key="AKIA123",
    blobs_secret="long-and-random",
    trusted_proxies=("172.18.0.1",),
    registration="closed",
)


def changed(**changes):
    return msgspec.structs.replace(GOOD, **changes)


def bad(findings):
    return {finding.subject: finding.level for finding in findings if finding.level != "good"}


@pytest.fixture
def registered(settings):
    """The shipped models are in the log, as after `bioscope migrate`."""
    about = {"description": "", "sha256": "ab" * 32, "size": 1, "labels": ("a", "b"), "review_below": 0.5, "record": "{}"}
    with open_event_store(settings) as log:
        for path in bundled_manifests(models()):
            add_model(name=load_manifest(path.parent).name, **about, command=command(actor(Role.ADMIN)), log=log)
    return settings


@pytest.fixture
def production(registered, settings, tmp_path):
    """A production system on this test's servers, all of it well set."""
    key = tmp_path / "elsewhere" / "root.key"
    key.parent.mkdir()
    write_private(key, new_root_key())
    settings.data.chmod(0o700)
    return msgspec.structs.replace(
        settings,
        environment="production",
        password_strength="production",
        public_url="https://lab.example.org",
        blobs_url=str(tmp_path / "blobs"),
        root_key_file=key,
        trusted_proxies=("127.0.0.1",),
        registration="closed",
    )


@pytest.fixture
def with_key_file(production, tmp_path):
    """The same, of a process that has its own keys and not the root key."""
    write_key_file(tmp_path / "elsewhere" / "api.keys", RootKey.read(production.root_key_path), "api")
    return msgspec.structs.replace(production, key_file=str(tmp_path / "elsewhere" / "api.keys"), root_key_file=tmp_path / "not here")


GB = 10**9


@pytest.mark.parametrize(
    ("free", "total", "level", "words"),
    [
        (200 * GB, 500 * GB, "good", "200.0 GB of 500.0 GB (40 %) free"),
        (999_999_999, 10 * GB, "weak", "less than 1 GB"),
        (GB, 10 * GB, "good", "1.0 GB of 10.0 GB (10 %) free"),
        (49 * GB, 1000 * GB, "weak", "less than 5 %"),
        (0, 1000 * GB, "weak", "less than 1 GB"),
    ],
)
def test_little_free_space_is_a_weakness(tmp_path, free, total, level, words):
    finding = disk_space_finding(tmp_path, free=free, total=total)
    assert (finding.level, finding.subject) == (level, "disk space")
    assert words in finding.message
    assert str(tmp_path) in finding.message


def test_the_free_space_of_a_data_folder_that_does_not_exist_is_that_of_its_disk(tmp_path):
    data = tmp_path / "later" / "data"
    (finding,) = [one for one in machine_findings(Settings(data=data)) if one.subject == "disk space"]
    assert f"{data}: " in finding.message


def test_a_blob_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "blobs"
    (finding,) = [one for one in examine(Settings(data=tmp_path / "data", blobs_url=str(folder))) if one.subject == "blobs"]
    assert finding.level == "wrong"
    assert f"{folder} is unavailable or full (Not a directory)" in finding.message


def test_good_settings_have_no_weakness():
    assert bad(setting_findings(GOOD)) == {}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"password_strength": "embedded"}, "BIOSCOPE_PASSWORD_STRENGTH"),
        ({"postgres_url": ""}, "BIOSCOPE_POSTGRES_URL"),
        ({"kafka_url": ""}, "BIOSCOPE_KAFKA_URL"),
        ({"redis_url": ""}, "BIOSCOPE_REDIS_URL"),
        ({"blobs_url": ""}, "BIOSCOPE_BLOBS_URL"),
        ({"blobs_url": "blobs"}, "BIOSCOPE_BLOBS_URL"),
        ({"public_url": ""}, "BIOSCOPE_PUBLIC_URL"),
        ({"public_url": "http://lab.example.org"}, "BIOSCOPE_PUBLIC_URL"),
        ({"blobs_public_endpoint": "http://objects.example.org"}, "BIOSCOPE_BLOBS_PUBLIC_ENDPOINT"),
        ({"blobs_public_endpoint": "", "blobs_endpoint": "http://objects:7070"}, "BIOSCOPE_BLOBS_PUBLIC_ENDPOINT"),
        ({"cors_origins": ("*",)}, "BIOSCOPE_CORS_ORIGINS"),
        ({"cors_origins": ("https://web.example.org", "https://*.example.org")}, "BIOSCOPE_CORS_ORIGINS"),
        ({"cors_origins": ("http://web.example.org",)}, "BIOSCOPE_CORS_ORIGINS"),
        ({"cors_origins": ("https://web.example.org/",)}, "BIOSCOPE_CORS_ORIGINS"),
        ({"cors_origins": ("null",)}, "BIOSCOPE_CORS_ORIGINS"),
        ({"postgres_url": "postgresql://bioscope_app:postgres@postgres/bioscope"}, "BIOSCOPE_POSTGRES_URL"),
        ({"blobs_secret": "minioadmin"}, "BIOSCOPE_BLOBS_SECRET"),
        ({"trusted_proxies": ()}, "BIOSCOPE_TRUSTED_PROXIES"),
        ({"registration": "open"}, "BIOSCOPE_SMTP_URL"),
        ({"registration": "invite"}, "BIOSCOPE_SMTP_URL"),
        ({"email_verification": "on"}, "BIOSCOPE_SMTP_URL"),
        ({"smtp_url": "smtps://mail.example.org"}, "BIOSCOPE_MAIL_FROM"),
    ],
)
def test_production_refuses_each_weak_setting_by_its_name(changes, named):
    assert bad(setting_findings(changed(**changes))) == {named: "wrong"}
    assert bad(setting_findings(changed(**changes, environment="development"))) == {}


def test_an_installation_that_never_sent_mail_still_starts_and_says_so():
    assert bad(setting_findings(changed(registration="auto"))) == {"BIOSCOPE_SMTP_URL": "weak"}


@pytest.mark.parametrize(("answers", "level"), [(True, "good"), (False, "wrong")])
def test_the_mail_server_is_asked(tmp_path, answers, level):
    with SmtpRig() as rig:
        asked = Settings(data=tmp_path, smtp_url=rig.url)
        found = examine(asked) if answers else []
    found = found or examine(asked)
    assert [finding.level for finding in found if finding.subject == "mail"] == [level]


def test_what_merely_could_be_better_is_no_reason_to_refuse():
    assert bad(setting_findings(changed(trusted_proxies=("172.16.0.0/12",), access_ttl=86400))) == {
        "BIOSCOPE_TRUSTED_PROXIES": "weak",
        "BIOSCOPE_ACCESS_TTL": "weak",
    }


@pytest.mark.parametrize("proxies", ["127.0.0.1", "10.0.0.0/24", "::1", "fd00::7/128"])
def test_a_proxy_or_a_small_network_of_them_may_be_trusted(proxies):
    assert bad(setting_findings(changed(trusted_proxies=(proxies,)))) == {}


def test_a_development_system_belongs_on_its_machine():
    assert bad(setting_findings(Settings(host="0.0.0.0"))) == {"host": "weak"}


def test_no_secret_is_shown():
    told = str(list(setting_findings(changed(postgres_url="postgresql://a:changeme@h/d", blobs_secret="minioadmin"))))
    assert "changeme" not in told
    assert "minioadmin" not in told


def test_the_compose_file_sets_nothing_that_is_refused():
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["api"]
    given = {
        name: re.sub(r"\$\{\w+:\?[^}]*?(?:e\.g\. (\S+?))?\}", lambda m: m[1] or "long-and-random", str(value))
        for name, value in service["environment"].items()
    }
    given = {name: re.sub(r"\$\{\w+:-[^}]*\}", "", value) for name, value in given.items()}
    assert "wrong" not in bad(setting_findings(load(given))).values()


def test_a_good_production_system_is_well(with_key_file):
    found = examine(with_key_file)
    assert "wrong" not in bad(found).values()
    assert {finding.subject for finding in found if finding.level == "good"} >= {"postgres", "kafka", "redis", "blobs", "key file"}
    assert refusals(with_key_file) == []


def test_the_server_behind_the_redis_address_is_named_with_its_version(production):
    (found,) = [finding for finding in examine(production) if finding.subject == "redis"]
    assert re.fullmatch(r"Valkey \d+\.\d+\.\d+", found.message)


def test_a_fresh_checkout_is_well(tmp_path):
    assert bad(examine(Settings(data=tmp_path / "data"))) == {}


def test_the_owner_of_the_log_must_not_be_its_writer(production, owner_url):
    found = refusals(msgspec.structs.replace(production, postgres_url=owner_url))
    assert [finding.subject for finding in found] == ["postgres"]
    assert "bioscope_app" in found[0].message


@pytest.mark.parametrize("name", ["synchronous_commit"])
def test_a_database_that_forgets_is_refused(production, owner_url, database, name):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"alter database {database} set {name} = off")
    (found,) = refusals(production)
    assert name in found.message
    development = msgspec.structs.replace(production, environment="development")
    assert bad(examine(development))["postgres"] == "weak"


def test_a_database_without_its_migrations_is_named(registered, settings, owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("delete from ops.migrations where number = 1")
    (found,) = [finding for finding in examine(settings) if finding.level == "wrong"]
    assert "bioscope migrate" in found.message


def test_a_database_without_models_is_named(settings):
    (found,) = [finding for finding in examine(settings) if finding.level == "wrong"]
    assert found.subject == "models"
    assert "bioscope migrate" in found.message


def test_versions_in_use_whose_files_are_gone_are_named(registered, settings, owner_url):
    """A version without an alias needs no file to be well: nobody runs it. An external one has none."""
    store = open_blobs(settings, NO_KEYS)
    writer = store.begin()
    writer.write(b"package")
    package, _ = writer.commit()
    added = {"number": 2, "sha256": "1" * 64, "package": package, "added_by": str(uuid4())}
    versions = [{"number": 1, "sha256": "0" * 64}, added, {"number": 3, "sha256": "2" * 64}]
    versions.append({"number": 4, "sha256": "3" * 64, "kind": "external", "added_by": added["added_by"]})
    insert = """insert into read.models (id, version, name, description, versions, aliases, created_at, retired)
      values (gen_random_uuid(), 1, 'cells', '', %s, %s, now(), false)"""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(insert, (Jsonb(versions), Jsonb({"production": 2, "theirs": 4})))
        findings = examine(settings)
        assert "wrong" not in bad(findings).values()
        (said,) = [one.message for one in findings if "blob store has" in one.message]
        assert said == "the blob store has the files of all versions with an alias; models that users added: 1"
        connection.execute("update read.models set aliases = %s where name = 'cells'", (Jsonb({"production": 2, "candidate": 3}),))
        (found,) = [finding for finding in examine(settings) if finding.level == "wrong"]
        assert (found.subject, "cells version 3:" in found.message) == ("models", True)
        store.delete(package)
        (found,) = [finding for finding in examine(settings) if finding.level == "wrong"]
        assert "cells version 2, cells version 3:" in found.message


def test_an_installation_without_models_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "INSTALLED", tmp_path)
    (found,) = [finding for finding in examine(Settings(data=tmp_path / "data")) if finding.level == "wrong"]
    assert found.subject == "models"
    assert "contains no model" in found.message


@pytest.mark.parametrize(("mode", "level"), [(0o600, None), (0o640, "wrong"), (0o604, "wrong")])
def test_the_root_key_is_for_its_owner_alone(production, mode, level):
    production.root_key_path.chmod(mode)
    assert bad(refusals(production)).get("root key") == level


def test_the_root_key_does_not_lie_among_the_data(production, settings):
    beside = msgspec.structs.replace(production, root_key_file=settings.root_key_file)
    assert bad(refusals(beside)) == {"root key": "wrong"}


def test_a_process_that_holds_the_root_key_in_production_is_named(production):
    (found,) = [finding for finding in examine(production) if finding.subject == "root key"]
    assert found.level == "weak"
    assert "bioscope keys export" in found.message
    assert refusals(production) == []


def test_a_root_key_beside_the_key_file_is_named(with_key_file, production):
    both = msgspec.structs.replace(with_key_file, root_key_file=production.root_key_file)
    assert bad(refusals(both)) == {}
    (found,) = [finding for finding in examine(both) if finding.subject == "root key"]
    assert (found.level, found.message.partition(" ")[0]) == ("weak", str(production.root_key_path))


@pytest.mark.parametrize(("mode", "level"), [(0o600, None), (0o640, "wrong"), (0o604, "wrong")])
def test_a_key_file_is_for_its_owner_alone(with_key_file, mode, level):
    with_key_file.key_path.chmod(mode)
    assert bad(refusals(with_key_file)).get("key file") == level


SHORT_KEY = '{"format": 1, "process": "api", "secret": {"heads": [{"id": "00000000", "key": "AAAA"}]}, "public": {}}'


@pytest.mark.parametrize("text", ["", "{}", SHORT_KEY])
def test_a_key_file_that_is_none_is_refused(with_key_file, text):
    with_key_file.key_path.write_text(text)
    assert bad(refusals(with_key_file)) == {"key file": "wrong"}


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(16)).decode()])
def test_a_root_key_that_is_none_is_refused(production, text):
    write_private(production.root_key_path, text)
    assert bad(refusals(production)) == {"root key": "wrong"}


@pytest.mark.anyio
async def test_what_a_real_kafka_keeps_is_told(kafka_url):
    await create_topics(kafka_url)
    assert await _topic_durability(kafka_url) == (1, 1, 1)


def test_another_installations_root_key_is_seen(production, settings, owner_url):
    with psycopg.connect(owner_url) as connection:
        connection.execute("insert into es.secrets values ('key', gen_random_uuid(), %s)", (os.urandom(60),))
    (found,) = [finding for finding in examine(production) if finding.level == "wrong"]
    assert "another installation" in found.message


def test_each_server_that_is_away_is_named(with_key_file, tmp_path):
    away = msgspec.structs.replace(
        with_key_file, postgres_url="postgresql://127.0.0.1:1/none", kafka_url="127.0.0.1:1", redis_url=f"unix://{tmp_path}/none"
    )
    assert bad(examine(away)) == {"postgres": "wrong", "kafka": "wrong", "redis": "wrong"}
    assert refusals(away) == []


@pytest.mark.parametrize("process", ["api", "relay", "projector", "inference", "inference-bridge"])
def test_no_process_starts_in_production_with_a_weak_setting(production, process):
    weak = msgspec.structs.replace(production, public_url="http://lab.example.org")
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", process],
        env=environment(weak, os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "BIOSCOPE_PUBLIC_URL" in done.stderr


@pytest.mark.parametrize("command", ["inference", "doctor"])
def test_a_kernel_that_cannot_isolate_decoders_is_named_with_what_to_do(production, command):
    done = subprocess.run(
        [sys.executable, "-c", "import tests.adversaries.broken_landlock; from api.cli import main; main()", command],
        env=environment(production, os.environ) | {"COLUMNS": "1000"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "missing: Landlock" in done.stdout + done.stderr
    assert "BIOSCOPE_ACCEPT_UNSANDBOXED=1" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_relay", "bioscope_projector", "bioscope_inference"])
def test_a_process_with_a_role_of_its_own_is_well_and_one_that_may_append_everything_is_weak(production, postgres, database, role):
    own = msgspec.structs.replace(production, postgres_url=postgres.url(user=role, database=database))
    assert refusals(own) == []
    assert "postgres" not in bad(examine(own))
    assert bad(examine(production))["postgres"] == "weak"
    assert "postgres" not in bad(examine(msgspec.structs.replace(production, environment="development")))
