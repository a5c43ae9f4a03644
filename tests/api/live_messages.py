"""Messages of a live WebSocket, and what a client has to hear of a log."""

import asyncio
import json


async def send(watch, **body):
    await watch.send(json.dumps(body, default=str))


async def receive(watch, within=10):
    return json.loads(await asyncio.wait_for(watch.recv(), within))


def expected_events(served, member, dataset, *, until):
    """(position, type) of the events up to a position that concern the account or the dataset."""
    return [(one.position, one.type) for one in everything(served.log, until=until) if concerns(served.log.decode(one), member, dataset)]


def everything(log, *, until):
    return [one for start in range(0, until, 500) for one in log.read(start, 500) if one.position <= until]


def concerns(event, member, dataset):
    return dataset in {event.originator_id, getattr(event, "dataset_id", None)} or member.id in {
        event.originator_id,
        getattr(event, "user_id", None),
    }
