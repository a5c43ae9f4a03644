"""Load, decide, append; and again when somebody else was faster: the shape of every command."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID, uuid5

import msgspec

from application.ports import Command, EventStore, Evolve, ReleasedClaim, Secret, StreamPrecondition, UniqueClaim
from domain.errors import ConcurrencyConflict, NotFound, StreamClosed, VersionMismatch
from domain.events import Event, State

S = TypeVar("S", bound=State)
MAX_ATTEMPTS = 8


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command's effect: the stream, its version now, and the position from which on it can be read (0: nothing changed)."""

    id: UUID
    version: int
    position: int
    replayed: bool = False


def new_id(command: Command, noun: str) -> UUID:
    """The same command makes the same thing, however often it is sent."""
    return uuid5(command.id, noun)


def idempotent(log: EventStore, command: Command, decide: Callable[[], CommandResult]) -> CommandResult:
    """Decide; but a command with a digest that was taken before is answered as the first time, and decides nothing again.

    Raises KeyReused too.
    """
    known = log.outcome(command) if command.digest is not None else None
    if known is None or known.subject is None:
        return decide()
    return CommandResult(id=known.subject, version=_version_at(known.position, log), position=known.position, replayed=True)


def _version_at(position: int, log: EventStore) -> int:
    """What a command answered whose last event stands there."""
    return log.read(position - 1, 1)[0].version


def load_existing(log: EventStore, stream: UUID, evolve: Evolve[S], *, what: str, closed: Callable[[S], bool]) -> S:
    """Raises NotFound, also for what was deleted."""
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
    """Append a new stream's first events. A repeat of the command answers as the first time."""
    stream = events[0].originator_id
    appended = log.append(command, *events, subject=stream, guards=guards, claims=claims, secrets=secrets)
    return CommandResult(id=appended.subject or stream, version=len(events), position=appended.position, replayed=appended.replayed)


def execute(
    log: EventStore,
    command: Command,
    load: Callable[[], S],
    decide: Callable[[S], Sequence[Event] | Event],
    *,
    expected: int | None = None,
    guards: Callable[[S, Sequence[Event]], Sequence[StreamPrecondition]] = lambda *_: (),
    claims: Callable[[S], Sequence[UniqueClaim]] = lambda _: (),
    releases: Callable[[S], Sequence[ReleasedClaim]] = lambda _: (),
    secrets: Sequence[Secret] = (),
) -> CommandResult:
    """Decide on the newest state, again after each conflict. With `expected` (If-Match) a moved stream raises VersionMismatch.

    `guards`, `claims` and `releases` follow from the state that was decided on, and are asked for anew with each decision.
    """
    for attempt in range(MAX_ATTEMPTS):
        state = load()
        if expected is not None and state.version != expected:
            raise VersionMismatch(f"This has changed: it stands at version {state.version}, not {expected}. Load it again")
        decided = decide(state)
        events = [decided] if isinstance(decided, Event) else list(decided)
        if not events:
            return CommandResult(id=state.id, version=state.version, position=0)
        try:
            appended = log.append(
                command,
                *events,
                subject=state.id,
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
        version = _version_at(appended.position, log) if appended.replayed else state.version + len(events)
        return CommandResult(id=state.id, version=version, position=appended.position, replayed=appended.replayed)
    raise AssertionError("unreachable")


def chain(state: S, evolve: Evolve[S], decisions: Iterable[Callable[[S], Sequence[Event]]]) -> list[Event]:
    """The events of several decisions on one stream, each made on what those before it left."""
    events: list[Event] = []
    for decide in decisions:
        for event in decide(state):
            events.append(event)
            state = evolve(state, event) or state
    return events
