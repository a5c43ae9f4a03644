"""Where documents state a limit, and the value that the code has: a phrase with `#` for each number."""

import re
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, get_args

from api import events, previews
from api.cli import processes
from api.options import WebOptions
from application import authentication, blob_gc, model_checks, signed_downloads
from application.history import event_feed, lists_as_of
from application.jobs import dispatch_policy
from application.limits import access_budget
from application.limits.sign_in_attempts import SignInRates
from application.recheck import outdated_results
from domain import model, values
from domain.classification import selection
from domain.links import LIFETIMES, LinkPurpose
from infrastructure.audit import access_log, signed_heads
from infrastructure.blobs import filesystem, s3
from infrastructure.configuration.settings import Settings
from infrastructure.embedded import data_folder
from infrastructure.eventstore import capabilities
from infrastructure.images import rendering
from infrastructure.mail import delivery, folder, records
from infrastructure.mail.mailer import DEFAULT_LIMITS as MAILER
from infrastructure.observability import crash_counts, heartbeat
from infrastructure.operations import log_ranges
from infrastructure.postgres.schema import migrations
from infrastructure.security import refresh_tokens
from projections import api_keys, pagination, statistics
from projections.engine.subscription import DEFAULT_LIMITS as SUBSCRIPTION
from projections.process.background import DEFAULT_LIMITS as BACKGROUND

DOCS = Path(__file__).parents[1] / "docs"
GIVEN, WEB = Settings(), WebOptions(base_url="")
ADMISSION, LIVE = WEB.admission, WEB.live


class Stated(NamedTuple):
    """A sentence of `document` that holds the numbers `values` at the places marked `#`."""

    document: str
    phrase: str
    values: tuple[float, ...]


def stated(document, phrase, *values):
    return Stated(document, phrase, values)


def in_sql(pattern):
    """The number that the newest migration with this text has."""
    found = [match for text in migrations().values() for match in re.findall(pattern, text)]
    return int(found[-1])


def in_compose(pattern):
    return int(re.search(pattern, (DOCS.parent / "docker-compose.yml").read_text())[1])


def minutes(purpose):
    return LIFETIMES[purpose].total_seconds() / 60


LIFETIME = get_args(previews.Seconds)[1]
PARTITION = in_sql(r"function es\.partition_size\(\) .* return (\d+);")
LIVE_SECONDS = in_sql(r"function ops\.is_live[^;]*interval '(\d+) s'")
KEY_DAYS = in_sql(r"c\.digest is null then interval '1 day' else interval '(\d+) days'")
USE_DAYS = in_sql(r"delete from ops\.key_uses [^;]*now\(\) - interval '(\d+) days'")
LONG_STREAM = in_sql(r"where originator_version = (\d+)") - 1

STATED = (
    # ---- HTTP
    stated("api.md", "has # checks without an answer", model_checks.MAX_PENDING),
    stated("statistics.md", "on the last # days", statistics.DEFAULT_DAYS),
    stated("statistics.md", "gives more than # groups, or that is about more than # days", statistics.MAX_GROUPS, statistics.MAX_DAYS),
    stated("api.md", "a list of # to # images of one dataset", 1, selection.MAX_LISTED),
    stated("api.md", "at the latest, at most # days from now", selection.MAX_DEADLINE.days),
    stated("models/format.md", "the model has # versions", model.MAX_VERSIONS),
    stated("api.md", "valid for # minutes", GIVEN.access_ttl / 60),
    stated("api.md", "again within # seconds gets the same response", refresh_tokens.REUSE_GRACE_PERIOD.total_seconds()),
    stated("api.md", "Its access tokens stop working within # seconds", 2 * authentication.CACHE_SECONDS),
    stated("api.md", "A key is remembered for # days", KEY_DAYS),
    stated("api.md", "milliseconds and at most # seconds", WEB.visible_timeout_seconds),
    stated("api.md", "After # seconds the response is 503 with `Retry-After`", WEB.visible_timeout_seconds),
    stated("api.md", "The maximum is #, which is also the default", pagination.MAX_PAGE),
    stated("api.md", "`expires_in` between # and # seconds", LIFETIME.ge, LIFETIME.le),
    stated("api.md", "at most #, or # where images are stored on S3", filesystem.MAX_URL_SECONDS, s3.MAX_URL_SECONDS),
    stated("api.md", "Both take effect within # seconds", 2 * authentication.CACHE_SECONDS),
    stated("api.md", "never more than # seconds away", s3.MAX_URL_SECONDS * (1 + 1 / signed_downloads.WINDOWS_PER_LIFETIME)),
    stated("api.md", "keeps its address for # minutes", filesystem.MAX_URL_SECONDS / signed_downloads.WINDOWS_PER_LIFETIME / 60),
    stated("api.md", "waits for it for up to # seconds", WEB.preview_wait_seconds),
    stated("api.md", "It has at most # characters", values.MAX_FILENAME),
    stated("api.md", "with at most # characters", values.MAX_PATH_LENGTH),
    stated("api.md", "a body may pause for # minute", WEB.body_timeouts.idle_seconds / 60),
    stated("api.md", "within # seconds\n  // both", LIVE.authenticate_timeout_seconds),
    stated("api.md", "sent every # seconds. Answer with any message", LIVE.ping_interval_seconds),
    stated("api.md", "(`: ping`) comes every # seconds", LIVE.ping_interval_seconds),
    stated("api.md", "rows a second (#)", GIVEN.live_rows_per_second),
    stated("api.md", "has ended (within # seconds)", LIVE.session_check_interval_seconds + authentication.CACHE_SECONDS),
    stated("api.md", "did not read for # seconds", LIVE.send_timeout_seconds),
    stated("api.md", "sent nothing for # minute", LIVE.max_silence_seconds // 60),
    stated("api.md", "more than # messages in a second", LIVE.max_messages_per_second),
    stated("api.md", "With # attempts in progress", GIVEN.logins_per_minute_account),
    stated("api.md", "signed in during the last # days", GIVEN.known_address_days),
    # ---- events
    stated("events.md", "With `wait=#`", events.MAX_WAIT_SECONDS),
    stated("events.md", "or after # s without one", events.MAX_WAIT_SECONDS),
    stated("events.md", "at most # events and about # MB", event_feed.MAX_EVENTS, event_feed.MAX_BYTES // 1024**2),
    # ---- operation
    stated("accounts.md", "From one network address, # mails", GIVEN.mails_per_hour_address),
    stated("accounts.md", "together, # password resets and # other mails", *[GIVEN.mails_per_hour_strangers] * 2),
    stated("accounts.md", "signed in within # days", GIVEN.known_address_days),
    stated("accounts.md", "the newest of the # resets", GIVEN.mails_per_hour_strangers),
    stated("accounts.md", "try another one # times an hour", SignInRates().user_names_per_hour),
    stated("operations/accounts.md", "A password has # to # characters", values.MIN_PASSWORD_CHARACTERS, values.MAX_PASSWORD_CHARACTERS),
    stated("operations/accounts.md", "within # s in the others", authentication.CACHE_SECONDS),
    stated("operations/accounts.md", "more than # s later", refresh_tokens.REUSE_GRACE_PERIOD.total_seconds()),
    stated("operations/backup.md", "in ranges of # events", log_ranges.POSITIONS_PER_RANGE),
    stated("operations/configure.md", "after # days (`BIOSCOPE_KNOWN_ADDRESS_DAYS`)", GIVEN.known_address_days),
    stated("operations/install.md", "(# bytes with their names)", data_folder.MAX_SOCKET_PATH),
    stated("operations/install.md", "(uploads in progress, # MB)", in_compose(r"/tmp:size=(\d+)m")),
    stated("operations/install.md", "(working directory and home, # MB)", in_compose(r"/var/lib/bioscope:size=(\d+)m")),
    stated("operations/mail.md", "verify it, within # minutes", minutes(LinkPurpose.VERIFY_EMAIL)),
    stated("operations/mail.md", "accept it, within # days", LIFETIMES[LinkPurpose.ACCEPT_INVITATION].days),
    stated("operations/mail.md", "choose it, within # minutes", minutes(LinkPurpose.RESET_PASSWORD)),
    stated("operations/mail.md", "confirm it, within # minutes", minutes(LinkPurpose.CHANGE_EMAIL)),
    stated("operations/mail.md", "The next attempt is after # s", MAILER.first_pause),
    stated("operations/mail.md", "up to # minutes", MAILER.longest_pause / 60),
    stated("operations/mail.md", "at first after # minute", delivery.DEFERRALS[0].total_seconds() / 60),
    stated(
        "operations/mail.md",
        "# times within # hours",
        len(delivery.DEFERRALS),
        round(sum(delivery.DEFERRALS, timedelta()).total_seconds() / 3600),
    ),
    stated("operations/mail.md", "listed for # days", int(records.FAILURES_KEPT.split()[0])),
    stated("operations/mail.md", "The newest # are kept", folder.KEPT_FILES),
    stated("operations/monitor.md", "hung for # s", heartbeat.STALE_AFTER_SECONDS),
    stated("operations/monitor.md", "seen within # s", dispatch_policy.WORKER_ALIVE_WITHIN.total_seconds()),
    stated("operations/monitor.md", "streams with more than # events", LONG_STREAM),
    stated("operations/monitor.md", "Idempotency-Key | after # days", KEY_DAYS),
    stated("operations/monitor.md", "uses of API keys | # days after", USE_DAYS),
    stated("programs.md", "removed # days after the key ended", USE_DAYS),
    stated("programs.md", "working keys of one owner | at most #", api_keys.MAX_WORKING_KEYS),
    stated("operations/monitor.md", "# days after they were stored", blob_gc.MIN_AGE.days),
    stated("operations/monitor.md", "The first run is # hour after", BACKGROUND.housekeeping_interval_seconds / 3600),
    stated("operations/monitor.md", "older than # day. In", blob_gc.MAX_LAG.days),
    stated("operations/monitor.md", "a partition for every # events", PARTITION),
    stated(
        "operations/troubleshoot.md",
        "ended # times within # minute",
        crash_counts.CRASHES_OF_A_LOOP,
        crash_counts.CRASH_WINDOW_SECONDS / 60,
    ),
    stated("operations/troubleshoot.md", "no worker was seen for # s", dispatch_policy.WORKER_ALIVE_WITHIN.total_seconds()),
    stated("operations/troubleshoot.md", "no bridge was seen for # s", dispatch_policy.WORKER_ALIVE_WITHIN.total_seconds()),
    stated("operations/troubleshoot.md", "at most # requests at the same time", ADMISSION.normal),
    stated(
        "operations/troubleshoot.md",
        "for more than # second, the limit drops to #",
        ADMISSION.overloaded_after_seconds,
        ADMISSION.overloaded,
    ),
    stated("operations/troubleshoot.md", "returns to # after # second", ADMISSION.normal, ADMISSION.recovered_after_seconds),
    stated("operations/troubleshoot.md", "tries # again every # s", ADMISSION.normal, ADMISSION.probe_interval_seconds),
    stated("operations/troubleshoot.md", "An upload waits # s", WEB.uploads.store_timeout_seconds),
    stated("operations/upgrade.md", "declares every # s", capabilities.DECLARE_INTERVAL_SECONDS),
    stated("operations/upgrade.md", "seen within # s", LIVE_SECONDS),
    stated("operations/upgrade.md", "every # s it checks", SUBSCRIPTION.paused_poll_interval_seconds),
    stated("operations/upgrade.md", "a process waits # s for it", processes.DATABASE_WAIT_SECONDS),
    # ---- audit and images
    stated("audit.md", "every minute and every # events", signed_heads.SIGN_AFTER_EVENTS),
    stated("audit.md", "# a minute from one network", access_budget.DEFAULT_LIMITS.refusals),
    stated("audit.md", "one by one, and # from all networks together", access_budget.DEFAULT_LIMITS.all_refusals),
    stated("audit.md", "of other accesses, # and #.", access_budget.DEFAULT_LIMITS.accesses, access_budget.DEFAULT_LIMITS.all_accesses),
    stated("audit.md", "# records wait", access_log.DEFAULT_LIMITS.queued),
    stated("audit.md", "(# by default), in ranges", GIVEN.access_log_days),
    stated("audit.md", "in ranges of # events", log_ranges.POSITIONS_PER_RANGE),
    stated("audit.md", "up to # uploads, or # chunks", lists_as_of.MAX_IMAGES, lists_as_of.MAX_CHUNKS),
    stated(
        "images.md",
        "more than # million pixels, # bands or # pages",
        GIVEN.image_max_pixels / 10**6,
        GIVEN.image_max_bands,
        GIVEN.image_max_pages,
    ),
    stated("images.md", "or over # random", rendering.MAX_SAMPLE),
    stated("images.md", "by more than #", outdated_results.MAX_SCORE_DIFFERENCE),
    # ---- threat model
    stated("threat-model.md", "valid for at most # s", s3.MAX_URL_SECONDS * (1 + 1 / signed_downloads.WINDOWS_PER_LIFETIME)),
    stated("threat-model.md", "# KiB within # s without a token", GIVEN.anonymous_body_max_bytes / 1024, GIVEN.anonymous_body_seconds),
    stated("threat-model.md", "# s for a head", GIVEN.request_head_seconds),
)

NO_LIMITS = (
    ("events.md", "`ce_previoushash`, 32 bytes"),  # of the encoding that is hashed
    ("events.md", "length (4 bytes, big-endian)"),
    ("events.md", "position (8 bytes)"),
    ("operations/backup.md", "about 200 bytes each"),  # measured
    ("operations/install.md", "stops on SIGTERM within 10 s"),  # measured: the sum of many
    ("operations/install.md", "stops all of them within 10 s on Ctrl-C"),
    ("audit.md", "about 110 MiB"),  # measured
)
"""Numbers with a unit that no constant of the code decides, by the words around them."""
