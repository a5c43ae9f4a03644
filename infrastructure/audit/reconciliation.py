"""Compare the claims, password hashes and data keys of accounts, registrations, invitations and devices with the log.

They are stored in tables beside the log, so that they can be deleted. Write access to the database is enough to replace them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Event, Thread
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import psycopg
import structlog

from application import bootstrap
from application.passwords import PASSWORD
from application.ports import RecordedEvent
from domain.device import Device, DeviceCameOnline, DeviceWentOffline
from domain.errors import Unavailable
from domain.events import State
from domain.invitation import Invitation
from domain.registration import Registration
from domain.registry import ERASING, NOUN_OF, NOUNS, is_known
from domain.service_account import ServiceAccount
from domain.user import User, commitment
from infrastructure.eventstore.codec import Undecodable, is_sealed_by_its_stream
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.security.keys import MissingKey, WrongRootKey

log = structlog.get_logger()

SUBJECTS_PER_QUERY: Final = 100  # accounts and devices
PAUSE_SECONDS: Final = 0.2
STOP_TIMEOUT_SECONDS: Final = 1.0
KEY: Final = "key"
RECONCILED_NOUNS: Final = frozenset({"user", "device", "registration", "invitation", "service_account"})
ERASING_TYPES: Final = frozenset(kind.__name__ for kind in ERASING)
IGNORED_TYPES: Final = (
    DeviceCameOnline.__name__,
    DeviceWentOffline.__name__,
)  # most events of a device in logs of earlier releases

SHOWN_SUBJECTS: Final = "select id from read.users union select id from read.devices"
"""Accounts and devices in the read models."""
NAMED_SUBJECTS: Final = f"select stream from es.claims union select owner from es.secrets where kind = '{PASSWORD}'"  # noqa: S608 - a constant
"""All streams that have a claim or a password."""

HISTORIES: Final = f"""select {EVENT_COLUMNS} from es.streams s, es.stream_events(s.stream, 0) e
  where s.stream = any(%s) and topic <> all(%s) order by originator_id, originator_version"""  # noqa: S608 - constants
CLAIMS: Final = "select stream, scope, digest from es.claims where stream = any(%s)"
SECRETS: Final = f"select owner, kind, value from es.secrets where owner = any(%s) and kind in ('{KEY}', '{PASSWORD}')"  # noqa: S608


class Discrepancy(NamedTuple):
    """A difference between the log and the tables beside it, about one account or device."""

    subject: UUID
    what: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}"


class StoredRows(msgspec.Struct):
    """The rows of one subject: digests of claims by scope, and secrets by kind."""

    claims: dict[str, list[bytes]] = msgspec.field(default_factory=lambda: defaultdict(list))
    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)


class CheckedSubject(NamedTuple):
    """The problems of a subject whose stream was at `version`."""

    version: int
    problems: Sequence[str]


def shown_subjects(log: PostgresEventStore) -> set[UUID]:
    """Accounts and devices in the read models, and all streams with claims or passwords. Raises Unavailable."""
    return {subject for query in (SHOWN_SUBJECTS, NAMED_SUBJECTS) for (subject,) in log.recorder.rows_of_long_query(query)}


def named_subjects(log: PostgresEventStore) -> set[UUID]:
    """All streams with claims or passwords. Raises Unavailable."""
    return {subject for (subject,) in log.recorder.rows_of_long_query(NAMED_SUBJECTS)}


def discrepancies(log: PostgresEventStore, subjects: Iterable[UUID]) -> Iterator[Discrepancy]:
    """The discrepancies of `subjects`. Needs the keys of claims and data keys. Blocks. Raises Unavailable, MissingKey.

    A problem counts only if it is found twice at the same version of the stream, so that concurrent changes are not reported.
    """
    remaining = iter(subjects)
    while group := list(islice(remaining, SUBJECTS_PER_QUERY)):
        suspects = {subject: checked for subject, checked in _check(log, group).items() if checked.problems}
        confirmed = _check(log, list(suspects)) if suspects else {}
        for subject, checked in confirmed.items():
            if checked == suspects[subject]:
                yield from (Discrepancy(subject, problem) for problem in checked.problems)


def _check(log: PostgresEventStore, subjects: Sequence[UUID]) -> dict[UUID, CheckedSubject]:
    histories: dict[UUID, list[RecordedEvent]] = defaultdict(list)
    for row in log.recorder.rows(HISTORIES, list(subjects), list(IGNORED_TYPES)):
        recorded = recorded_from(row)
        histories[recorded.stream].append(recorded)
    stored = _stored(log, subjects)
    return {
        subject: CheckedSubject(
            histories[subject][-1].version if histories[subject] else 0, list(_problems(log, histories[subject], stored[subject]))
        )
        for subject in subjects
    }


def _stored(log: PostgresEventStore, subjects: Sequence[UUID]) -> Mapping[UUID, StoredRows]:
    found: dict[UUID, StoredRows] = defaultdict(StoredRows)
    for stream, scope, digest in log.recorder.rows(CLAIMS, list(subjects)):
        found[stream].claims[scope].append(digest)
    for owner, kind, value in log.recorder.rows(SECRETS, list(subjects)):
        found[owner].secrets[kind] = value
        log.codec.forget(owner)
    return found


def _problems(log: PostgresEventStore, history: Sequence[RecordedEvent], stored: StoredRows) -> Iterator[str]:
    if any(not is_known(recorded.type, recorded.schema_version) for recorded in history):
        return  # an event of a newer release may explain everything
    noun = NOUN_OF.get(history[0].type) if history else None
    if noun not in RECONCILED_NOUNS:
        if stored.claims or PASSWORD in stored.secrets:
            yield "it has a claim or a password, but the log has no such account or device"
        return
    key_problem = _key_problem(log, history, stored.secrets.get(KEY))
    if key_problem is not None:
        yield key_problem
        return
    try:
        state = _folded(log, noun, history)
    except Undecodable:
        yield "an event about it cannot be read"
        return
    if isinstance(state, User | Registration):
        yield from _password_problems(state, stored.secrets.get(PASSWORD))
    yield from _claim_problems(log, _claims_of(state), stored.claims, optional=_optional_claims_of(state))


def _key_problem(log: PostgresEventStore, history: Sequence[RecordedEvent], wrapped: bytes | None) -> str | None:
    erased = any(one.type in ERASING_TYPES for one in history)
    if erased:
        return None if wrapped is None else "its data key was destroyed but exists again"
    if wrapped is None:
        return "its data key is missing, but it was not erased" if any(map(is_sealed_by_its_stream, history)) else None
    try:
        log.codec.check_key(history[0].stream, wrapped)
    except MissingKey:
        raise
    except WrongRootKey:
        return "its data key was replaced"
    return None


def _folded(log: PostgresEventStore, noun: str, history: Sequence[RecordedEvent]) -> State | None:
    """Raises Undecodable."""
    state: Any = None
    for one in history:
        state = NOUNS[noun].evolve(state, log.codec.decode(one))
    return state  # type: ignore[no-any-return]


def _password_problems(account: User | Registration, stored: bytes | None) -> Iterator[str]:
    is_closed = account.deleted if isinstance(account, User) else not account.is_open
    if is_closed:
        if stored is not None:
            yield "it is closed but has a password"
    elif stored is None:
        if account.password_commitment:
            yield "its password hash is missing"
    elif account.password_commitment not in {"", commitment(account.id, stored)}:
        yield "its password hash is not the one that was set"


def _claims_of(state: State | None) -> dict[str, str]:
    match state:
        case User(deleted=False):
            return {"email": state.email, "username": state.username}
        case Device(removed=False):
            return {"hostname": state.hostname}
        case ServiceAccount(deleted=False):
            return {"service": state.name}
        case Invitation() if state.is_open:
            return {"invitation": state.email}
        case _:
            return {}


def _optional_claims_of(state: State | None) -> dict[str, str]:
    """Claims that a stream may have: only the newest registration of an address has one, and only the first administrator."""
    match state:
        case User(deleted=False):
            return {bootstrap.SCOPE: bootstrap.FIRST}
        case Registration() if state.is_open:
            return {"registration": state.email}
        case _:
            return {}


def _claim_problems(
    log: PostgresEventStore, expected: Mapping[str, str], stored: Mapping[str, Sequence[bytes]], *, optional: Mapping[str, str]
) -> Iterator[str]:
    expected = {**expected, **{scope: value for scope, value in optional.items() if scope in stored}}
    for scope, value in expected.items():
        forms = log.claim_forms(scope, value)
        digests = stored.get(scope, ())
        if not any(digest in forms for digest in digests):
            yield f"its {scope} is not claimed"
        if any(digest not in forms for digest in digests):
            yield f"another {scope} is claimed for it"
    for scope in stored.keys() - expected.keys():
        yield f"a {scope} is claimed for it without right"


class Reconciler:
    """Compares all accounts and devices with the log every `seconds`, and passes all discrepancies to `report`."""

    def __init__(self, log: PostgresEventStore, *, seconds: float, report: Callable[[Sequence[Discrepancy]], None]) -> None:
        self._log, self._seconds, self._report = log, seconds, report
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop soon. Waits at most `STOP_TIMEOUT_SECONDS` for a query in progress."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._report(list(discrepancies(self._log, self._paced(shown_subjects(self._log)))))
            except (Unavailable, psycopg.OperationalError):  # the latter if the event store was closed in the meantime
                log.warning("claims, passwords and data keys were not compared with the log: the database is unavailable")
            except Exception:  # the thread must survive every failure: a later comparison may succeed
                log.exception("claims, passwords and data keys were not compared with the log")
            self._stopped.wait(self._seconds)

    def _paced(self, subjects: Iterable[UUID]) -> Iterator[UUID]:
        """Pause after each group, so that requests of users are not slowed down."""
        for number, subject in enumerate(subjects, 1):
            if self._stopped.is_set():
                return
            yield subject
            if number % SUBJECTS_PER_QUERY == 0:
                self._stopped.wait(PAUSE_SECONDS)
