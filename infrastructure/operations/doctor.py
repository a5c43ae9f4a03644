"""Checks of an installation: settings, machine, and servers."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
import redis

from application.jobs.topics import EVENTS
from application.mail.mail import MailServerUnavailable
from application.ports import BlobStore
from domain.errors import DomainError, Unavailable
from domain.values import model_id
from infrastructure.audit.reconciliation import discrepancies, shown_subjects
from infrastructure.blobs.filesystem import blobs_folder
from infrastructure.blobs.s3 import is_on_s3
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings, WrongSetting, variable
from infrastructure.embedded.installation import NotRunning, running_settings
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.inference.models.bundled import bundled_manifests, models
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.mail.transport import smtp_transport_of
from infrastructure.observability.health import ABSENT_BLOB
from infrastructure.observability.metrics_server import metrics_token
from infrastructure.operations.config_checks import ConfigFinding, good, key_file_findings, machine_findings, setting_findings, weak, wrong
from infrastructure.operations.package_clashes import package_clashes
from infrastructure.postgres.profiles import DIAGNOSIS
from infrastructure.postgres.schema import SchemaAhead, SchemaBehind, check
from infrastructure.sandbox import Layers, supported
from infrastructure.sandbox.policy import remedy
from infrastructure.security.key_ring import NO_KEYS, Purpose
from infrastructure.security.keyed_digest import CLAIM_PURPOSES
from infrastructure.security.keys import DataKeys, Keys, WrongRootKey
from infrastructure.security.process_keys import operator_keys

__all__ = ["ConfigFinding", "examine", "refusals"]

TIMEOUT_SECONDS: Final = 3
DISCREPANCIES_SHOWN: Final = 20
ROLES_PAGE: Final = " (docs/operations.md, Database roles)"
DURABLE: Final = ("fsync", "full_page_writes", "synchronous_commit")
DURABLE_SETTINGS: Final = "select name, setting from pg_settings where name = any(%s)"
MAY_CHANGE_THE_LOG: Final = """select has_table_privilege('es.events', 'insert, update, delete, truncate')
  or has_any_column_privilege('es.events', 'insert, update') or has_table_privilege('es.streams', 'insert, update, delete, truncate')"""
REGISTERED: Final = "select count(*) from es.streams where stream = any(%s)"
FILES_IN_USE: Final = """select m.name, one ->> 'number', coalesce(one ->> 'package', one ->> 'sha256'), one ->> 'added_by'
  from read.models m, jsonb_array_elements(m.versions) one
  where not m.retired and exists (select from jsonb_each_text(m.aliases) a where a.value = one ->> 'number')
    and one ->> 'kind' is distinct from 'external' order by 1, 2"""
MAY_READ_KEYS: Final = "select has_table_privilege('es.secrets', 'select')"
MAY_APPEND_ALL: Final = "select '*' = any (topics) from ops.writers where role = session_user"
ANY_DATA_KEY: Final = "select owner, value from es.secrets where kind = 'key' limit 1"


def examine(settings: Settings) -> list[ConfigFinding]:
    """All findings. Blocks for a few seconds at most."""
    settings = _completed(settings)
    findings = [*setting_findings(settings), *machine_findings(settings), *package_clashes(), *key_file_findings(settings)]
    findings += [*_run_check("models", _bundled_models, settings), *_run_check("metrics", _metrics, settings)]
    findings += _run_check("sandbox", sandbox_findings, settings)
    for subject, name, check_ in CHECKS:
        if getattr(settings, name) or (check_ is _blobs and settings.root_key_path.exists()):
            findings += _run_check(subject, check_, settings)
    return findings


def refusals(settings: Settings) -> list[ConfigFinding]:
    """The reasons why a process may not start in production. An unavailable server is none, since it may become available."""
    findings = [*setting_findings(settings), *key_file_findings(settings)]
    with suppress(psycopg.OperationalError, SchemaBehind, SchemaAhead):
        findings += _postgres(settings)
    return [finding for finding in findings if finding.level == "wrong"]


def _completed(settings: Settings) -> Settings:
    """The settings with the addresses of the running embedded system, if there is one."""
    try:
        return running_settings(settings)
    except NotRunning:
        return settings


def _run_check(subject: str, check_: Callable[[Settings], Iterator[ConfigFinding]], settings: Settings) -> list[ConfigFinding]:
    try:
        return list(check_(settings))
    except (SchemaBehind, SchemaAhead, WrongRootKey, WrongSetting, DomainError) as error:
        return [wrong(subject, str(error))]
    except Exception as error:  # any driver error: the server is unavailable or unsuitable
        reason = (str(error).splitlines() or [""])[0][:200]
        return [wrong(subject, f"does not answer ({type(error).__name__}) {reason}".rstrip())]


def _postgres(settings: Settings) -> Iterator[ConfigFinding]:
    level = wrong if settings.environment == "production" else weak
    with DIAGNOSIS.connect_unmonitored(settings.postgres_url) as connection:
        for name, setting in connection.execute(DURABLE_SETTINGS, (list(DURABLE),)):
            if setting == "off":
                yield level("postgres", f"{name} is off: an acknowledged command could be lost; set it to on")
        check(settings.postgres_url)
        yield good("postgres", f"version {connection.info.server_version // 10000}, all migrations are applied")
        if _single_row(connection, MAY_CHANGE_THE_LOG)[0]:
            yield level(
                "postgres", f"{connection.info.user} can change the log: give each process its own role, or all bioscope_app{ROLES_PAGE}"
            )
        if settings.environment == "production" and connection.execute(MAY_APPEND_ALL).fetchone() == (True,):
            yield weak("postgres", f"{connection.info.user} can append events of every type: give each process its own role{ROLES_PAGE}")
        for owner, wrapped in connection.execute(ANY_DATA_KEY) if _single_row(connection, MAY_READ_KEYS)[0] else ():
            if (keys := _keys(settings)).holds(Purpose.DATA_KEYS):
                _unwrap(keys, owner, wrapped)
                yield good("root key", "opens the data keys of this database")


def _side_tables(settings: Settings) -> Iterator[ConfigFinding]:
    """Findings of the reconciliation, none without keys or while Postgres does not answer. Raises WrongRootKey."""
    keys = _keys(settings)
    if not all(map(keys.holds, (Purpose.DATA_KEYS, *CLAIM_PURPOSES))):
        return
    try:
        with open_event_store(settings, keys) as log:
            subjects = shown_subjects(log)
            differing = list(discrepancies(log, subjects))
    except Unavailable:
        return
    yield from (wrong("record", str(discrepancy)) for discrepancy in differing[:DISCREPANCIES_SHOWN])
    if not differing:
        yield good("record", f"claims, passwords and keys of {len(subjects)} accounts and devices agree with the log")


def _keys(settings: Settings) -> Keys:
    """The available keys. Raises WrongRootKey."""
    return operator_keys(settings) if settings.key_path or settings.root_key_path.exists() else NO_KEYS


def _unwrap(keys: Keys, owner: UUID, wrapped: bytes) -> None:
    """Raises WrongRootKey if the keys do not open the data key."""
    DataKeys(keys, lambda _: {owner: wrapped}).get(owner)


def _bundled_models(_: Settings) -> Iterator[ConfigFinding]:
    """Raises Invalid."""
    yield good("models", f"this release includes {len(bundled_manifests(models()))}")


def sandbox_findings(settings: Settings, layers: Layers | None = None) -> Iterator[ConfigFinding]:
    """Findings about the sandbox layers of this kernel, or about `layers`. Raises OSError."""
    available = layers or supported()
    if available.missing:
        accepted = settings.environment != "production" or settings.accept_unsandboxed
        yield (weak if accepted else wrong)("sandbox", remedy(available))
    else:
        yield good("sandbox", f"decoders and models run under {available}; the inference process can only open the files that it needs")
        if remaining := available.not_restricted:
            yield weak("sandbox", f"an attacker in the inference process could {' and '.join(remaining)}")
    if settings.accept_unsandboxed:
        yield weak(variable("accept_unsandboxed"), "set: images are decoded even if the kernel cannot isolate the decoders")


def _metrics(settings: Settings) -> Iterator[ConfigFinding]:
    """Raises WrongSetting."""
    secured = "with a secret" if metrics_token(settings) else "without a secret"
    yield good("metrics", f"served on {settings.metrics_host}:{settings.metrics_port} {secured}" if settings.metrics_port else "not served")


def _registered_models(settings: Settings) -> Iterator[ConfigFinding]:
    """Findings about the models of this release, none while Postgres does not answer or is not migrated."""
    shipped = [model_id(load_manifest(path.parent).name) for path in bundled_manifests(models())]
    with suppress(psycopg.Error), DIAGNOSIS.connect_unmonitored(settings.postgres_url) as connection:
        (count,) = connection.execute(REGISTERED, (shipped,)).fetchone() or (0,)
        if count < len(shipped):
            yield wrong("models", f"{count} of {len(shipped)} are registered: run `bioscope migrate`")
        else:
            yield good("models", f"all {count} are registered")


def _model_files(settings: Settings) -> Iterator[ConfigFinding]:
    """Whether the blob store has all versions with an alias. Nothing while Postgres or the blob store does not answer."""
    with suppress(psycopg.Error, Unavailable):
        with DIAGNOSIS.connect_unmonitored(settings.postgres_url) as connection:
            versions = connection.execute(FILES_IN_USE).fetchall()
        store = open_blobs(settings, NO_KEYS)
        if missing := [f"{name} version {number}" for name, number, file, _ in versions if not store.exists(file)]:
            names = ", ".join(missing[:DISCREPANCIES_SHOWN])
            yield wrong("models", f"the blob store lacks the files of {names}: restore them from a backup, or add the packages again")
        elif versions:
            of_users = len({name for name, _, _, user in versions if user})
            yield good("models", f"the blob store has the files of all versions with an alias; models that users added: {of_users}")


class TopicDurability(NamedTuple):
    """The replication of the log's topic. `min_insync_replicas` must have a record before it is acknowledged (0: unknown)."""

    brokers: int
    replicas: int
    min_insync_replicas: int


def _kafka(settings: Settings) -> Iterator[ConfigFinding]:
    durability = asyncio.run(_topic_durability(settings.kafka_url))
    if durability.replicas == 0:
        yield weak("kafka", f"{durability.brokers} brokers without the topics; the relay creates them")
        return
    in_sync = durability.min_insync_replicas or "?"
    yield good(
        "kafka",
        f"{durability.brokers} brokers; the log's topic has {durability.replicas} replicas, of which {in_sync} must be in sync",
    )
    if settings.environment == "production" and min(durability.replicas, durability.min_insync_replicas) < 2:
        yield weak("kafka", "the topic is lost with one broker until the relay publishes it again: use three, min.insync.replicas=2")


async def _topic_durability(brokers: str) -> TopicDurability:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 - slow to import

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its errors are reported here
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, request_timeout_ms=TIMEOUT_SECONDS * 1000)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await admin.start()
            cluster = await admin.describe_cluster()
            (topic,) = await admin.describe_topics([EVENTS])
            replicas = max((len(partition["replicas"]) for partition in topic["partitions"]), default=0)
            return TopicDurability(len(cluster["brokers"]), replicas, await _min_insync_replicas(admin) if replicas else 0)
    finally:
        await admin.close()


async def _min_insync_replicas(admin: Any) -> int:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: PLC0415 - slow to import
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - slow to import

    resource = ConfigResource(ConfigResourceType.TOPIC, EVENTS, configs={"min.insync.replicas": ""})
    with suppress(KafkaError):  # the embedded broker has no such call
        for answer in await admin.describe_configs([resource]):
            for *_, entries in answer.resources:
                return next((int(value) for name, value, *_ in entries if name == "min.insync.replicas"), 0)
    return 0


def _redis(settings: Settings) -> Iterator[ConfigFinding]:
    with redis.Redis.from_url(
        settings.redis_url, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS, protocol=2
    ) as client:
        info: Any = client.info("server")
        yield good("redis", f"Valkey {info['valkey_version']}" if "valkey_version" in info else str(info["redis_version"]))


def _blobs(settings: Settings) -> Iterator[ConfigFinding]:
    """A finding of storing, finding and deleting a blob."""
    where = settings.blobs_url if is_on_s3(settings) else str(blobs_folder(settings))
    try:
        yield _blob_store_finding(settings, where)
    except Unavailable as error:
        yield wrong("blobs", f"{where} is unavailable or full{_reason(error.__cause__)}")


def _blob_store_finding(settings: Settings, where: str) -> ConfigFinding:
    """Store, find and delete a blob, unless the credentials may not delete. Raises Unavailable."""
    store = open_blobs(settings, NO_KEYS)
    store.exists(ABSENT_BLOB)
    if not _may_delete(settings, store):
        return good("blobs", f"{where} answers; these credentials may not delete, so storing was not tested")
    writer = store.begin()
    writer.write(os.urandom(32))
    sha256, _ = writer.commit()
    exists = store.exists(sha256)
    store.delete(sha256)
    return good("blobs", where) if exists else wrong("blobs", f"{where}: a stored blob was not found")


def _mail(settings: Settings) -> Iterator[ConfigFinding]:
    """Raises WrongSetting."""
    server = smtp_transport_of(settings)
    try:
        server.check()
    except MailServerUnavailable as error:
        yield wrong("mail", str(error))
    else:
        yield good("mail", f"{server} answers")


def _reason(cause: BaseException | None) -> str:
    """The first line of the cause in parentheses; empty without one."""
    (line, *_) = (getattr(cause, "strerror", None) or str(cause or "")).splitlines() or [""]
    return f" ({line[:200]})" if line else ""


def _may_delete(settings: Settings, store: BlobStore) -> bool:
    """Raises Unavailable."""
    try:
        store.delete(ABSENT_BLOB)
    except Unavailable as refused:
        if settings.blobs_url.startswith("s3://") and isinstance(refused.__cause__, PermissionError):
            return False
        raise
    return True


def _single_row(connection: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row


CHECKS: Final = (
    ("postgres", "postgres_url", _postgres),
    ("record", "postgres_url", _side_tables),
    ("models", "postgres_url", _registered_models),
    ("models", "postgres_url", _model_files),
    ("kafka", "kafka_url", _kafka),
    ("redis", "redis_url", _redis),
    ("blobs", "blobs_url", _blobs),
    ("mail", "smtp_url", _mail),
)
