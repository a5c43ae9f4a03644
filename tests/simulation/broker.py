"""Kafka in memory: partitions may be lost, groups rebalanced, records late, duplicated or missing."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from application.jobs.topics import EVENTS
from application.ports import ChainedEvent, RecordedEvent
from infrastructure.kafka.batches import OffsetRange, RecordBatch
from infrastructure.kafka.cloud_events import RecordKey, headers
from infrastructure.kafka.topics import PARTITIONS
from infrastructure.security.keys import RootKey
from tests.adversaries.forging import forgeries

MAX_BATCH_RECORDS = 20
RECORD_KEY = RecordKey(RootKey(bytes(range(32))))


class Record(NamedTuple):
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    about: tuple[int, Any, int] | None = None  # position, stream, version


class Group:
    """Members of a group, the partitions of each, and what was committed."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.members: list[Any] = []
        self.generation = 0
        self.turn = 0
        self.committed: dict[TP, int] = {}

    def assigned(self, member: Any) -> list[TP]:
        if member not in self.members:
            return []
        mine = (self.members.index(member) + self.turn) % len(self.members)
        return [TP(topic, number) for topic in self.topics for number in range(PARTITIONS[topic]) if number % len(self.members) == mine]


class MemoryBroker:
    """`cluster` changes when everything is lost. What the relay publishes is looked at as it comes: no gap, no stream out of order."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._incarnation = 0
        self.groups: dict[str, Group] = {}
        self.came = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        self._incarnation += 1
        self.cluster = f"cluster-{self._incarnation}"
        self.partitions: defaultdict[TP, list[Record]] = defaultdict(list)
        self._reached: int | None = None
        self._versions: dict[Any, int] = {}

    def lose_everything(self) -> None:
        self._begin()
        for group in self.groups.values():
            group.committed.clear()
            group.generation += 1

    def append(self, tp: TP, key: bytes, value: bytes, told: Sequence[tuple[str, bytes]] = (), about: Any = None) -> int:
        records = self.partitions[tp]
        records.append(Record(len(records), key, value, told, about))
        self.came.set()
        return len(records) - 1

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        self.append(TP(topic, int.from_bytes(key[-4:], "big") % PARTITIONS[topic]), key, value)

    def publish(self, linked: ChainedEvent) -> int:
        event, told = linked.event, headers(linked, RECORD_KEY)
        self._look_at(event)
        return self.append(TP(EVENTS, 0), str(event.stream).encode(), event.data, told, (event.position, event.stream, event.version))

    def _look_at(self, event: RecordedEvent) -> None:
        if self._reached is not None and event.position > self._reached + 1:
            self._world.breaks(f"R5 the topic jumps from position {self._reached} to {event.position}")
        self._reached = max(self._reached or 0, event.position)
        if event.version > self._versions.setdefault(event.stream, event.version) + 1:
            self._world.breaks(f"R6 stream {event.stream} jumps from version {self._versions[event.stream]} to {event.version}")
        self._versions[event.stream] = max(self._versions[event.stream], event.version)

    # ---- groups ----
    def join(self, name: str, topics: Sequence[str], member: Any) -> Group:
        group = self.groups.setdefault(name, Group(topics))
        group.members.append(member)
        group.generation += 1
        return group

    def leave(self, group: Group, member: Any) -> None:
        if member in group.members:
            group.members.remove(member)
            group.generation += 1

    def rebalance(self, group: Group) -> None:
        group.turn += 1
        group.generation += 1

    def spans(self, group: Group, tps: Sequence[TP]) -> dict[TP, OffsetRange]:
        return {tp: OffsetRange(0, len(self.partitions[tp]), group.committed.get(tp)) for tp in tps}


class MemoryTopic:
    """The port `infrastructure.relay.topic.Topic`: an idempotent producer, whose acks may be lost."""

    def __init__(self, world: Any) -> None:
        self._world, self._broker = world, world.broker
        self._cluster = self._broker.cluster

    async def cluster_id(self) -> str:
        return str(self._broker.cluster)

    async def end(self) -> tuple[str, int]:
        return self._broker.cluster, len(self._broker.partitions[TP(EVENTS, 0)])

    async def publish(self, events: Sequence[ChainedEvent]) -> list[int | BaseException]:
        """A prefix is taken; of that again a prefix is known to be."""
        chance, plan = self._world.chance, self._world.plan
        taken = chance.randint(0, len(events)) if self._world.happens(plan.away) else len(events)
        offsets = [self._broker.publish(event) for event in events[:taken]]
        known = chance.randint(0, taken) if self._world.happens(plan.answer_lost) else taken
        lost = [KafkaConnectionError("no ack") for _ in events[known:]]
        return [*offsets[:known], *lost]


class Member:
    """In the place of `infrastructure.kafka.consumer_process.ConsumerProcess`: reads `topics` for `reader`, as one of a group."""

    def __init__(self, process: Any, name: str, topics: Sequence[str]) -> None:
        self._process, self._world, self._broker = process, process.world, process.world.broker
        self._topics = topics
        self._group = self._broker.join(name, topics, self)
        self._generation = -1
        process.leaves(lambda: self._broker.leave(self._group, self))

    def owns(self, topic: str) -> bool | None:
        if self._world.is_away("kafka") or self._generation != self._group.generation:
            return None
        return any(tp.topic == topic for tp in self._group.assigned(self))

    async def commit(self, offsets: dict[TP, int]) -> None:
        number = self._process.before("Member.commit")
        if self._world.is_away("kafka") or self._world.happens(self._world.plan.away):
            raise KafkaConnectionError("away")
        if self._generation != self._group.generation:
            raise KafkaConnectionError("these partitions are another's")
        self._group.committed |= offsets
        self._process.after("Member.commit", number)

    async def read_always(self, reader: Any) -> None:
        world = self._world
        places: dict[TP, int] = {}
        while True:
            while world.is_away("kafka"):
                await asyncio.sleep(0.2)
            if self._generation != self._group.generation:
                places = await self._begin(reader)
            for tp in world.chance.sample(sorted(places), len(places)):
                if self._generation != self._group.generation:
                    break
                records = self._broker.partitions[tp][places[tp] : places[tp] + world.chance.randint(1, MAX_BATCH_RECORDS)]
                if records:
                    cluster = self._broker.cluster
                    places[tp] = records[-1].offset + 1
                    number = self._process.before(f"Reader.process {tp.topic}")
                    await reader.process(RecordBatch(cluster, tp, self._mangled(tp, records)))
                    self._process.after(f"Reader.process {tp.topic}", number)
            await self._hear()

    async def _begin(self, reader: Any) -> dict[TP, int]:
        self._generation = self._group.generation
        mine = self._group.assigned(self)
        cluster = self._broker.cluster
        number = self._process.before("Reader.starting_offsets")
        places = await reader.starting_offsets(cluster, self._broker.spans(self._group, mine))
        self._process.after("Reader.starting_offsets", number)
        return dict(places)

    async def _hear(self) -> None:
        self._broker.came.clear()
        waits = 0.02 + self._world.delay()
        try:
            async with asyncio.timeout(0.25):
                await self._broker.came.wait()
            await asyncio.sleep(waits)
        except TimeoutError:
            pass

    def _mangled(self, tp: TP, records: list[Record]) -> list[Record]:
        """Some of it twice, and holes, as a lost log and a relay that begins again leave them; the last record stays."""
        world = self._world
        if tp.topic == EVENTS and world.happens(world.plan.forged):
            records = self._with_forgeries(records)
        if not world.happens(world.plan.mangled):
            return records
        if tp.topic != EVENTS:
            return records
        kept = [record for record in records[:-1] if not world.happens(0.3)]
        twice = [again for record in kept for again in ([record, record] if world.happens(0.3) else [record])]
        return [*twice, *kept[:1], records[-1]]

    def _with_forgeries(self, records: list[Record]) -> list[Record]:
        """What a liar who can write to the topic sends, between what the relay wrote."""
        chance = self._world.chance
        place = chance.randrange(len(records))
        copied = records[place]
        told, value = chance.choice(forgeries(copied, chance))
        self._world.counted["forged"] += 1
        return [*records[:place], copied, Record(copied.offset, copied.key, value, told), *records[place + 1 :]]
