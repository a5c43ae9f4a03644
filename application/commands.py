"""Execution of commands: load, decide, append, and repeat on the newer state after a conflict."""

from collections.abc import Callable, Collection, Iterable, Sequence
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
    """The effect of a command: the stream `id`, its new version, and the position of the last event (0: nothing changed).

    `replayed`: the command was executed before, and this is its first result.
    """

    id: UUID
    version: int
    position: int
    replayed: bool = False


def new_id(command: Command, noun: str) -> UUID:
    """The id of a new stream. A repeated command gives the same id."""
    return uuid5(command.id, noun)


def idempotent(log: EventStore, command: Command, decide: Callable[[], CommandResult]) -> CommandResult:
    """The result of `decide`, or the first result if a command with a digest was executed before.

    Raises KeyReused, and what `decide` raises.
    """
    known = log.outcome(command) if command.digest is not None else None
    if known is None or known.subject is None:
        return decide()
    return CommandResult(id=known.subject, version=_version_at(known.position, log), position=known.position, replayed=True)


def _version_at(position: int, log: EventStore) -> int:
    """The stream version returned by the command whose last event is at `position`."""
    return log.read(position - 1, 1)[0].version


def load_existing(log: EventStore, stream: UUID, evolve: Evolve[S], *, what: str, closed: Callable[[S], bool], named: str = "") -> S:
    """The state of a stream. Raises NotFound if the stream does not exist, or if `closed` is true for its state.

    `what` is its noun in words; the message has `named` in its place, where one is given.
    """
    state = log.load(stream, evolve)
    if state is None or closed(state):
        raise NotFound(f"{named or what} not found", noun=what.lower().replace(" ", "_"), object_id=stream)
    return state


def load_all(log: EventStore, streams: Collection[UUID], evolve: Evolve[S]) -> dict[UUID, S]:
    """The states of those of the streams that exist, in one query."""
    recorded = log.histories(streams)
    log.prefetch(recorded)
    states: dict[UUID, S | None] = {}
    for one in recorded:
        states[one.stream] = evolve(states.get(one.stream), log.decode(one))
    return {stream: state for stream, state in states.items() if state is not None}


def create_stream(
    log: EventStore,
    command: Command,
    events: Sequence[Event],
    *,
    guards: Sequence[StreamPrecondition] = (),
    claims: Sequence[UniqueClaim] = (),
    releases: Sequence[ReleasedClaim] = (),
    secrets: Sequence[Secret] = (),
) -> CommandResult:
    """Append the first events of a new stream, followed by any events of other streams.

    A repeated command returns its first result. Raises what `EventStore.append` raises.
    """
    stream = events[0].originator_id
    version = sum(event.originator_id == stream for event in events)
    appended = log.append(command, *events, subject=stream, guards=guards, claims=claims, releases=releases, secrets=secrets)
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
    attempts: int = MAX_ATTEMPTS,
    also: Callable[[], Sequence[Event]] = tuple,
) -> CommandResult:
    """Load the state, decide, and append the events; repeat after a conflict, at most `attempts` times altogether.

    `guards`, `claims` and `releases` are derived from the state of each decision. `also` decides events of other streams, which are
    appended before those of the decision, if it has any. `stream` is required if `load` may return None.
    Raises VersionMismatch if the stream is not at the version `expected` (If-Match), NotFound if a precondition's stream is closed, and
    what `load`, `decide` and `EventStore.append` raise.
    """
    for attempt in range(attempts):
        state = load()
        subject, version = (state.id, state.version) if state is not None else (stream, 0)
        assert subject is not None
        if expected is not None and version != expected:
            raise VersionMismatch(f"This has changed: it is at version {version}, not {expected}. Load it again")
        decided = decide(state)
        events = [decided] if isinstance(decided, Event) else list(decided)
        if not events:
            return CommandResult(id=subject, version=version, position=0)
        try:
            appended = log.append(
                command,
                *also(),
                *events,
                subject=subject,
                guards=guards(state, events),
                claims=claims(state),
                releases=releases(state),
                secrets=secrets,
            )
        except ConcurrencyConflict:
            if attempt + 1 == attempts:
                raise
            continue
        except StreamClosed:
            raise NotFound("This was deleted in the meantime") from None
        version = _version_at(appended.position, log) if appended.replayed else version + len(events)
        return CommandResult(id=subject, version=version, position=appended.position, replayed=appended.replayed)
    raise AssertionError("unreachable")


def replaced_claim(scope: str, stream: UUID, *, old: str, new: str | None) -> tuple[tuple[ReleasedClaim, ...], tuple[UniqueClaim, ...]]:
    """The release of the old value and the claim of the new one; empty if there is no new value, or if both are equal names."""
    if not new or canonical(new) == canonical(old):
        return (), ()
    return (ReleasedClaim(stream=stream, scope=scope, value=old),), (UniqueClaim(scope=scope, value=new, stream=stream),)


def chain(state: S, evolve: Evolve[S], decisions: Iterable[Callable[[S], Sequence[Event]]]) -> list[Event]:
    """The events of several decisions on one stream, each based on the state after the previous ones."""
    events: list[Event] = []
    for decide in decisions:
        for event in decide(state):
            events.append(event)
            state = evolve(state, event) or state
    return events
