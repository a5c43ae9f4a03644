"""How commands are executed: load, decide, append, and decide again after a conflict."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID, uuid5

import msgspec

from application.ports import Command, EventStore, Evolve, ReleasedClaim, Secret, StreamPrecondition, UniqueClaim
from domain.errors import ConcurrencyConflict, NotFound, StreamClosed, VersionMismatch
from domain.events import Event, State
from domain.values import canonical

S = TypeVar("S", bound=State)
Loaded = TypeVar("Loaded", bound=State | None)
MAX_ATTEMPTS = 8


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command's effect: the stream, its version now, and the position from which on it can be read (0: nothing changed)."""

    id: UUID
    version: int
    position: int
    replayed: bool = False


def new_id(command: Command, noun: str) -> UUID:
    """The id of a new stream: the same each time that the command is repeated."""
    return uuid5(command.id, noun)


def idempotent(log: EventStore, command: Command, decide: Callable[[], CommandResult]) -> CommandResult:
    """The result of `decide`; of a command with a digest that was executed before, its first result.

    Raises KeyReused too.
    """
    known = log.outcome(command) if command.digest is not None else None
    if known is None or known.subject is None:
        return decide()
    return CommandResult(id=known.subject, version=_version_at(known.position, log), position=known.position, replayed=True)


def _version_at(position: int, log: EventStore) -> int:
    """The stream version returned by the command whose last event is at `position`."""
    return log.read(position - 1, 1)[0].version


def load_existing(log: EventStore, stream: UUID, evolve: Evolve[S], *, what: str, closed: Callable[[S], bool]) -> S:
    """Raises NotFound where there is no such stream, or `closed` says that it was deleted."""
    state = log.load(stream, evolve)
    if state is None or closed(state):
        raise NotFound(f"{what} not found")
    return state


def create_stream(
    log: EventStore,
    command: Command,
    events: Sequence[Event],
    *,
    guards: Sequence[StreamPrecondition] = (),
    claims: Sequence[UniqueClaim] = (),
    secrets: Sequence[Secret] = (),
) -> CommandResult:
    """Append the first events of a new stream, and perhaps events of other streams after them.

    A repetition of the command returns its first result.
    """
    stream = events[0].originator_id
    version = sum(event.originator_id == stream for event in events)
    appended = log.append(command, *events, subject=stream, guards=guards, claims=claims, secrets=secrets)
    return CommandResult(id=appended.subject or stream, version=version, position=appended.position, replayed=appended.replayed)


def execute(
    log: EventStore,
    command: Command,
    load: Callable[[], Loaded],
    decide: Callable[[Loaded], Sequence[Event] | Event],
    *,
    stream: UUID | None = None,
    expected: int | None = None,
    guards: Callable[[Loaded, Sequence[Event]], Sequence[StreamPrecondition]] = lambda *_: (),
    claims: Callable[[Loaded], Sequence[UniqueClaim]] = lambda _: (),
    releases: Callable[[Loaded], Sequence[ReleasedClaim]] = lambda _: (),
    secrets: Sequence[Secret] = (),
) -> CommandResult:
    """Decide on the newest state, again after each conflict. With `expected` (If-Match) a newer stream raises VersionMismatch.

    `guards`, `claims` and `releases` follow from the state of each decision. `stream` is needed where `load` may return None.
    """
    for attempt in range(MAX_ATTEMPTS):
        state = load()
        subject, version = (state.id, state.version) if state is not None else (stream, 0)
        assert subject is not None
        if expected is not None and version != expected:
            raise VersionMismatch(f"This has changed: it stands at version {version}, not {expected}. Load it again")
        decided = decide(state)
        events = [decided] if isinstance(decided, Event) else list(decided)
        if not events:
            return CommandResult(id=subject, version=version, position=0)
        try:
            appended = log.append(
                command,
                *events,
                subject=subject,
                guards=guards(state, events),
                claims=claims(state),
                releases=releases(state),
                secrets=secrets,
            )
        except ConcurrencyConflict:
            if attempt + 1 == MAX_ATTEMPTS:
                raise
            continue
        except StreamClosed:
            raise NotFound("This was deleted in the meantime") from None
        version = _version_at(appended.position, log) if appended.replayed else version + len(events)
        return CommandResult(id=subject, version=version, position=appended.position, replayed=appended.replayed)
    raise AssertionError("unreachable")


def replaced_claim(scope: str, stream: UUID, *, old: str, new: str | None) -> tuple[tuple[ReleasedClaim, ...], tuple[UniqueClaim, ...]]:
    """Releases the old value and claims the new one; nothing where there is no new one, or both count as the same name."""
    if not new or canonical(new) == canonical(old):
        return (), ()
    return (ReleasedClaim(stream=stream, scope=scope, value=old),), (UniqueClaim(scope=scope, value=new, stream=stream),)


def chain(state: S, evolve: Evolve[S], decisions: Iterable[Callable[[S], Sequence[Event]]]) -> list[Event]:
    """The events of several decisions on one stream, each made on the state that those before it left."""
    events: list[Event] = []
    for decide in decisions:
        for event in decide(state):
            events.append(event)
            state = evolve(state, event) or state
    return events
