"""The composition root of `bioscope projector`, and of what the command line does to read models."""

from collections.abc import Sequence
from uuid import UUID

from application.ports import Recorded
from domain.events import Event
from infrastructure.event_store import EventLog, encoded_from


class LogDecoder:
    """Events out of the log, with the keys of their subjects."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def prefetch(self, recorded: Sequence[Recorded]) -> None:
        self._log.codec.prefetch(map(encoded_from, recorded))

    def decode(self, recorded: Recorded) -> Event:
        return self._log.decode(recorded)

    def forget(self, subject: UUID) -> None:
        self._log.codec.forget(subject)
