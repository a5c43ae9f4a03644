"""The composition root of the API and the command line: each port with its adapter."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog
from psycopg import Connection

from application.cancellation import cancel_and_wait
from application.limits.change_limits import ChangeLimit
from application.limits.prediction_limit import PredictionLimit
from application.limits.sign_in_attempts import SignInLimits, SignInRates
from application.mail.mails import MailWriter
from application.ports import BlobStore
from application.services import Services
from domain.errors import Unavailable
from infrastructure.audit import log_verification
from infrastructure.audit.access_log import AccessLog
from infrastructure.audit.access_verification import AccessVerification, verify_access
from infrastructure.audit.chain_verification import VerificationResult
from infrastructure.audit.reconciliation import Discrepancy, Reconciler
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import Capabilities, capabilities_of
from infrastructure.eventstore.event_store import PostgresEventStore, postgres_event_store
from infrastructure.images.validation import ImageLimits, ImageUploadValidator
from infrastructure.inference.input_check import check_input
from infrastructure.inference.packages.export import export_package
from infrastructure.inference.predictor import SandboxedPredictor
from infrastructure.mail.delivery import MailDelivery
from infrastructure.mail.mailer import Mailer
from infrastructure.mail.records import MailRecords
from infrastructure.mail.transport import transport_of
from infrastructure.observability.health import DependencyChecks
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.observability.metrics import DISCREPANCIES, MAILS, RECONCILED_AT, exposition, observe_request, observe_status
from infrastructure.operations.registration_expiry import RegistrationExpiry
from infrastructure.postgres.key_uses import PostgresKeyUses
from infrastructure.postgres.last_seen import PostgresLastSeen
from infrastructure.postgres.query_database import PositionWaiter, PostgresQueryDatabase
from infrastructure.postgres.system.status import system_status
from infrastructure.realtime.redis_pubsub import RedisNotifications
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens
from infrastructure.security.key_ring import NO_KEYS, Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys
from infrastructure.security.known_addresses import PostgresKnownAddresses
from infrastructure.security.mail_links import KeyedMailLinks
from infrastructure.security.page_tokens import KeyedPageTokens
from infrastructure.security.passwords import Argon2Passwords
from infrastructure.security.process_keys import operator_keys, process_keys
from infrastructure.security.rate_limits import RedisRateLimiter
from infrastructure.security.refresh_tokens import PostgresRefreshTokens
from infrastructure.security.signed_urls import unseal

log = structlog.get_logger()

PRODUCT_NAMES: Final = ("BioScopeAI Core", "bioscope")
MAX_REPORTED_DISCREPANCIES: Final = 100  # logged per run
STATUS_INTERVAL_SECONDS: Final = 5.0  # between two updates of the status metrics


def blobs(settings: Settings) -> BlobStore:
    """The blob store for the command line, without keys to sign addresses."""
    return open_blobs(settings, NO_KEYS)


def passwords(settings: Settings) -> Argon2Passwords:
    host = urlsplit(settings.base_url).hostname or ""
    return Argon2Passwords(settings.password_strength, service_names=(*PRODUCT_NAMES, host))


def refresh_tokens(settings: Settings, keys: Keys | None = None) -> PostgresRefreshTokens:
    """The refresh tokens, with the operator's keys unless `keys` are given. Raises WrongRootKey."""
    return PostgresRefreshTokens(
        settings.postgres_url,
        operator_keys(settings) if keys is None else keys,
        idle_seconds=settings.refresh_idle_ttl,
        absolute_seconds=settings.refresh_absolute_ttl,
    )


def verify_log(settings: Settings, log: PostgresEventStore) -> VerificationResult:
    """Verify the whole log and every signed head. Raises Unavailable."""
    return log_verification.verify_log(settings, log)


def verify_access_trail(settings: Settings, log: PostgresEventStore) -> AccessVerification:
    """Verify the whole trail of access and its signed heads. Raises Unavailable, WrongRootKey."""
    keys = operator_keys(settings)
    return verify_access(log, keys, open_blobs(settings, keys))


def rates(settings: Settings) -> SignInRates:
    return SignInRates(
        account_and_address_per_minute=settings.logins_per_minute_account,
        account_per_hour=settings.logins_per_hour_account,
        address_per_minute=settings.logins_per_minute_address,
        registrations_per_hour=settings.registrations_per_hour_address,
        mails_per_hour=settings.mails_per_hour_address,
        mails_per_hour_for_strangers=settings.mails_per_hour_strangers,
    )


def services(settings: Settings) -> Services:
    """All ports, connected to the servers in the settings. Connections are opened by `lifespan()` or the first call.

    Raises WrongRootKey.
    """
    keys = process_keys(settings, "api")
    limits = RedisRateLimiter(settings.redis_url, keys)
    event_log = postgres_event_store(settings, keys, changes=ChangeLimit(limits=limits, per_minute=settings.changes_per_minute_stream))
    capabilities = capabilities_of(event_log, "api")
    reads = PostgresQueryDatabase(settings.postgres_url)
    live_reads = PostgresQueryDatabase(settings.postgres_url, size=settings.live_connections)
    position_waiter = PositionWaiter(settings.postgres_url)
    notifications = RedisNotifications(settings.redis_url)
    known_addresses = PostgresKnownAddresses(settings.postgres_url, keys, days=settings.known_address_days)
    store = open_blobs(settings, keys)
    tokens = refresh_tokens(settings, keys)
    access_log = AccessLog(settings.postgres_url)
    health = DependencyChecks(settings, reads=reads, blobs=store, access_trail_fails=access_log.failing_seconds)
    predictor = SandboxedPredictor(settings, store)
    image_limits = ImageLimits(pixels=settings.image_max_pixels, bands=settings.image_max_bands, pages=settings.image_max_pages)

    adapters = Adapters(
        reads=reads,
        live_reads=live_reads,
        position_waiter=position_waiter,
        notifications=notifications,
        health=health,
        capabilities=capabilities,
        predictor=predictor,
        registration_expiry=RegistrationExpiry(event_log, tokens),
        reconciler=Reconciler(event_log, seconds=settings.reconcile_seconds, report=_report_discrepancies),
        mailer=mailer(settings, event_log, keys),
        access_log=access_log,
        blocking=(event_log, tokens, known_addresses, limits, access_log),
    )
    return Services(
        log=event_log,
        reads=reads,
        live_reads=live_reads,
        read_position=position_waiter,
        notifications=notifications,
        blobs=store,
        passwords=passwords(settings),
        access_tokens=SignedAccessTokens(keys, ttl=settings.access_ttl),
        refresh_tokens=tokens,
        page_tokens=KeyedPageTokens(keys),
        last_seen=PostgresLastSeen(event_log.recorder.rows),
        key_uses=PostgresKeyUses(event_log.recorder.rows),
        sign_in_limits=SignInLimits(limits=limits, known_addresses=known_addresses, rates=rates(settings)),
        health=health,
        upload_validator=partial(ImageUploadValidator, limits=image_limits),
        request_digests=KeyedDigest(keys, Purpose.REQUEST_DIGESTS).forms,
        unseal_address=partial(unseal, keys),
        mail_links=KeyedMailLinks(keys),
        bootstrap_tokens=KeyedBootstrapTokens(keys),
        input_check=check_input,
        export_package=export_package,
        head_keys=tuple(key.public_bytes_raw() for key in keys.public(Purpose.HEADS)),
        predictor=predictor,
        prediction_limit=PredictionLimit(limits=limits, per_minute=settings.kserve_requests_per_minute),
        metrics=partial(exposition, "api"),
        observe_request=observe_request,
        access_trail=access_log,
        lifespan=partial(lifespan, adapters),
    )


def mailer(settings: Settings, events: PostgresEventStore, keys: Keys) -> Mailer:
    """The mailer over the transport that the settings choose. Raises WrongSetting."""
    transport = transport_of(settings)
    writer = MailWriter(log=events, links=KeyedMailLinks(keys), base_url=settings.base_url)

    def delivery(connection: Connection[Any]) -> MailDelivery:
        records = MailRecords(connection)
        return MailDelivery(events=events, writer=writer, transport=transport, records=records, count=_count_mail)

    return Mailer(settings.postgres_url, delivery)


class Closable(Protocol):
    def close(self) -> None: ...


class Adapters(NamedTuple):
    """The adapters that are opened with the application and closed with it. `blocking` ones are closed last, in this order."""

    reads: PostgresQueryDatabase
    live_reads: PostgresQueryDatabase
    position_waiter: PositionWaiter
    notifications: RedisNotifications
    health: DependencyChecks
    capabilities: Capabilities
    predictor: SandboxedPredictor
    registration_expiry: RegistrationExpiry
    reconciler: Reconciler
    mailer: Mailer
    access_log: AccessLog
    blocking: tuple[Closable, ...]


@asynccontextmanager
async def lifespan(adapters: Adapters) -> AsyncIterator[None]:
    """Open connections and start background work; at the end, stop and close everything in reverse order."""
    async with AsyncExitStack() as stack:
        for adapter in reversed(adapters.blocking):
            stack.push_async_callback(asyncio.to_thread, adapter.close)
        await asyncio.to_thread(adapters.capabilities.start)
        stack.push_async_callback(asyncio.to_thread, adapters.capabilities.stop)
        for database in (adapters.reads, adapters.live_reads):
            await database.open()
            stack.push_async_callback(database.close)
        stack.push_async_callback(adapters.health.close)
        stack.callback(adapters.predictor.close)
        for listener in (adapters.position_waiter, adapters.notifications):
            await listener.start()
            stack.push_async_callback(listener.stop)
        for background in (adapters.access_log, adapters.reconciler, adapters.registration_expiry, adapters.mailer):
            background.start()
            stack.push_async_callback(asyncio.to_thread, background.stop)
        for work in (HEARTBEAT.beat_always(), _update_status_always(adapters.reads)):
            stack.push_async_callback(cancel_and_wait, asyncio.create_task(work))
        yield


def _count_mail(outcome: str) -> None:
    MAILS.labels(outcome).inc()


def _report_discrepancies(discrepancies: Sequence[Discrepancy]) -> None:
    for discrepancy in discrepancies[:MAX_REPORTED_DISCREPANCIES]:
        log.error("a table differs from the log", subject=str(discrepancy.subject), what=discrepancy.what)
    DISCREPANCIES.set(len(discrepancies))
    RECONCILED_AT.set_to_current_time()


async def _update_status_always(reads: PostgresQueryDatabase) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            observe_status(await system_status(reads))
        await asyncio.sleep(STATUS_INTERVAL_SECONDS)
