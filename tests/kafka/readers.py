"""Readers that misbehave, each a process: `python -m tests.kafka.readers BEHAVIOUR BROKERS`; what they do stands on stdout."""

import asyncio
import sys

import msgspec

from application.topics import EVENTS
from infrastructure.configuration.settings import Settings
from infrastructure.kafka import consumer_process


class Reader:
    def __init__(self, behaviour):
        self.behaviour, self.waits = behaviour, behaviour == "waits"

    async def starting_offsets(self, _cluster, spans):
        say("joined")
        return {tp: span.begin for tp, span in spans.items()}

    async def take(self, frame):
        say(f"took {len(frame.records)}")
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


def main(behaviour, brokers):
    consumer_process.HUNG_AFTER_SECONDS = 6.0  # longer than a first join takes here
    reader = Reader(behaviour)
    given = msgspec.structs.replace(Settings(), kafka_url=brokers, kafka_groups=False, kafka_fetch_wait=0.003)
    reading = consumer_process.ConsumerProcess(given, group="readers", topics=(EVENTS,), reader=reader, name="reader")
    reading.run(reader.beside, finish=reader.finish, prepared=reader.prepared)


if __name__ == "__main__":
    main(*sys.argv[1:])
