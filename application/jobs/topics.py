"""The Kafka topics."""

from typing import Final

EVENTS: Final = "bioscope.events"
BULK: Final = "bioscope.inference-tasks"
URGENT: Final = "bioscope.inference-urgent"
EXTERNAL: Final = "bioscope.inference-external"
DEAD_LETTERS: Final = "bioscope.dead-letters"
