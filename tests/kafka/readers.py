"""Faulty consumer processes: `python -m tests.kafka.readers SOURCE BEHAVIOUR BROKERS`; they report on stdout."""

import asyncio
import sys

import msgspec

from application.jobs.topics import EVENTS
from infrastructure.configuration.settings import Settings
from infrastructure.kafka.aiokafka_source import AiokafkaBatchSource
from infrastructure.kafka.consumer_process import ConsumerLimits, ConsumerProcess
from infrastructure.kafka.faust_source import FaustBatchSource

WATCHED = ("hangs", "waits", "is idle")
"""The behaviours whose tests wait for the watchdog."""
SOURCES = {"faust": FaustBatchSource, "aiokafka": AiokafkaBatchSource}


class Reader:
    def __init__(self, behaviour):
        self.behaviour, self.is_waiting = behaviour, behaviour == "waits"

    async def starting_offsets(self, _cluster, ranges):
        say("joined")
        skipped = 2 if self.behaviour == "skips two" else 0
        return {partition: min(span.begin + skipped, span.end) for partition, span in ranges.items()}

    async def process(self, batch):
        say(f"took {len(batch.records)}")
        say(f"values {b' '.join(record.value for record in batch.records).decode()}.")
        match self.behaviour:
            case "raises":
                raise RuntimeError("a reader that fails")
            case "hangs" | "waits":
                await asyncio.sleep(1000)

    async def beside(self):
        if self.behaviour != "ends beside":
            await asyncio.sleep(1000)

    async def prepared(self):
        if self.behaviour == "unprepared":
            await asyncio.sleep(1000)

    async def finish(self):
        say("finished")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(source, behaviour, brokers, groups="ungrouped"):
    reader = Reader(behaviour)
    settings = msgspec.structs.replace(Settings(), kafka_url=brokers, kafka_groups=groups == "grouped", kafka_fetch_wait=0.003)
    limits = ConsumerLimits(hung_after_seconds=6.0) if behaviour in WATCHED else ConsumerLimits()  # 6 s: longer than most joins take
    process = ConsumerProcess(
        settings, group="readers", topics=(EVENTS,), reader=reader, name="reader", source=SOURCES[source], limits=limits
    )

    async def wake_always():
        while True:
            await asyncio.sleep(0.05)
            process.wake()

    process.run(reader.beside, wake_always, finish=reader.finish, prepared=reader.prepared)


if __name__ == "__main__":
    main(*sys.argv[1:])
