"""Models as they were at earlier positions of the log, without a fold of their whole history for each question."""

from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from application.ports import EventStore
from domain import model
from domain.access import Actor, Role, require_role
from domain.errors import NotFound
from domain.model import Model, ModelVersionAdded
from domain.values import model_id

EVENTS_PER_CHECKPOINT: Final = 128


class _Checkpoint(NamedTuple):
    """The state of a stream at one of its events, which is named by its position and id."""

    position: int
    event_id: UUID | None
    state: Model | None


_START: Final = _Checkpoint(0, None, None)


class PastModels:
    """Keeps a state of each model for every 128 of its events, so that a question folds at most 128 events. Thread-safe.

    The states of a model share its versions, so a long history needs little memory.
    """

    def __init__(self, log: EventStore) -> None:
        self._log = log
        self._checkpoints: dict[UUID, tuple[_Checkpoint, ...]] = {}
        self._lock = Lock()

    def at(self, name_or_id: str, *, until: int, actor: Actor) -> Model:
        """The model as it was at position `until`. Blocks. Raises NotFound if it did not exist yet, Forbidden, UpgradeNeeded."""
        require_role(actor, Role.VIEWER)
        for stream in _streams(name_or_id):
            if (found := self._state(stream, until)) is not None:
                return found
        raise NotFound(f"There was no model {name_or_id} at that time")

    def _state(self, stream: UUID, until: int) -> Model | None:
        checkpoint = self._before(stream, until)
        while True:
            events = self._log.touching(stream, (), after=max(checkpoint.position - 1, 0), maximum=EVENTS_PER_CHECKPOINT + 1)
            if checkpoint is not _START:
                if not events or events[0].event_id != checkpoint.event_id:  # the log was replaced
                    self._forget(stream)
                    checkpoint = _START
                    continue
                events = events[1:]
            elif not events or events[0].type != ModelVersionAdded.__name__:
                return None
            due = [one for one in events if one.position <= until]
            self._log.prefetch(due)
            state = checkpoint.state
            for one in due:
                state = model.evolve(state, self._log.decode(one))
            if len(due) < EVENTS_PER_CHECKPOINT:
                return state
            checkpoint = _Checkpoint(due[-1].position, due[-1].event_id, state)
            self._keep(stream, checkpoint)

    def _before(self, stream: UUID, until: int) -> _Checkpoint:
        kept = self._checkpoints.get(stream, ())
        return next((one for one in reversed(kept) if one.position <= until), _START)

    def _keep(self, stream: UUID, checkpoint: _Checkpoint) -> None:
        with self._lock:
            kept = self._checkpoints.get(stream, ())
            if not kept or kept[-1].position < checkpoint.position:
                self._checkpoints[stream] = (*kept, checkpoint)

    def _forget(self, stream: UUID) -> None:
        with self._lock:
            self._checkpoints.pop(stream, None)


def _streams(name_or_id: str) -> tuple[UUID, ...]:
    """A name may look like an id, which comes first."""
    try:
        return UUID(name_or_id), model_id(name_or_id)
    except ValueError:
        return (model_id(name_or_id),)
