"""Faults of a running installation: how often each is chosen, and how it is caused."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.chaos.hit import Hit
from tests.chaos.lies import files_swapped, forged_notifications, forged_records
from tests.chaos.proxy import KINDS

LASTS = (1.0, 3.0)  # seconds that a link stays spoiled
FULL_AT = 6000  # bytes after which a file cannot grow, while the disk is "full"
STANDBY_READY = 6.0
STAYS = (4.0, 15.0)


class Fault(NamedTuple):
    """`by(stack)` does it, yields the Hit, and clears up once recovery was measured. `share`: of 100 of its leg."""

    kind: str
    share: int
    by: Callable[[object], Iterator[Hit]]


def killed(name):
    def kill(stack):
        before = stack.pid(name)
        os.kill(before, signal.SIGQUIT if name == "postgres" else signal.SIGKILL)  # `pg_ctl -m immediate` sends no more than that
        yield Hit(time.monotonic())
        stack.wait_until_running(name, other_than=before)

    return kill


def child_killed(name):
    """One of the processes that it started itself, such as a decoder."""

    def kill(stack):
        os.kill(stack.child_of(name), signal.SIGKILL)
        yield Hit(time.monotonic())
        stack.wait_until_running(name)

    return kill


def supervisor_killed(stack):
    """Everything dies with it; it is started again at once, on the same data folder."""
    since = time.monotonic()
    stack.kill_supervisor()
    yield Hit(since)


def server_killed(name):
    def kill(stack):
        since = time.monotonic()
        stack.servers.kill(name)
        yield Hit(since)
        stack.servers.wait_until_answering(name)

    return kill


def projector_killed_with_a_standby(stack):
    stack.join("projector")
    time.sleep(STANDBY_READY)
    yield from killed("projector")(stack)
    stack.leave("projector")


def second_member(name, *, killed):
    """Joins its group, works for a while, and leaves it: told to, or killed."""

    def come_and_go(stack):
        stack.join(name)
        time.sleep(stack.chance.uniform(*STAYS))
        since = time.monotonic()
        stack.leave(name, killed=killed)
        yield Hit(since)

    return come_and_go


def spoiled(link, kind):
    def spoil(stack):
        lasts = stack.chance.uniform(*LASTS)
        stack.links[link].spoil(kind)
        time.sleep(lasts)
        stack.links[link].mend()
        yield Hit(time.monotonic(), lasts)

    return spoil


def disk_full(stack):
    """The API's files can grow no further, its log's too: what is written ends in the middle."""
    lasts = stack.chance.uniform(*LASTS)
    pid = stack.pid("api")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_AT, hard))
    time.sleep(lasts)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    yield Hit(time.monotonic(), lasts)


def links(name, share):
    return [Fault(f"{name} link: {kind}", share, spoiled(name, kind)) for kind in KINDS]


LEGS = {
    "embedded": [
        Fault("api", 21, killed("api")),
        Fault("relay", 12, killed("relay")),
        Fault("inference", 14, killed("inference")),
        Fault("a decoder", 4, child_killed("inference")),
        Fault("projector", 6, killed("projector")),
        Fault("projector, a standby there", 4, projector_killed_with_a_standby),
        Fault("supervisor", 5, supervisor_killed),
        Fault("redis", 5, killed("redis")),
        Fault("broker", 3, killed("broker")),
        Fault("postgres, immediate stop", 8, killed("postgres")),
        Fault("disk full, in the middle of a file", 3, disk_full),
        Fault("forged records and tasks", 4, forged_records),
        Fault("files swapped, and put back", 4, files_swapped),
        Fault("forged notifications", 2, forged_notifications),
        *links("http", 1),
    ],
    "servers": [
        Fault("api", 5, killed("api")),
        Fault("inference", 5, killed("inference")),
        Fault("projector", 3, killed("projector")),
        Fault("supervisor", 2, supervisor_killed),
        Fault("postgres, immediate stop", 6, server_killed("postgres")),
        Fault("redis", 4, server_killed("redis")),
        Fault("s3", 4, server_killed("s3")),
        Fault("s3 link: full", 5, spoiled("s3", "full")),
        Fault("s3 link: cut", 5, spoiled("s3", "cut")),
        Fault("files swapped, and put back", 4, files_swapped),
        Fault("forged notifications", 2, forged_notifications),
        *links("postgres", 3),
        *links("redis", 3),
        *links("s3", 3),
        *links("http", 2),
    ],
    "kafka": [
        Fault("api", 6, killed("api")),
        Fault("relay", 8, killed("relay")),
        Fault("inference", 8, killed("inference")),
        Fault("projector", 6, killed("projector")),
        Fault("kafka", 6, server_killed("kafka")),
        Fault("second projector comes and goes", 4, second_member("projector", killed=False)),
        Fault("second projector comes and is killed", 4, second_member("projector", killed=True)),
        Fault("second inference comes and goes", 6, second_member("inference", killed=False)),
        Fault("second inference comes and is killed", 4, second_member("inference", killed=True)),
        Fault("second relay comes and goes", 3, second_member("relay", killed=False)),
        Fault("postgres, immediate stop", 4, server_killed("postgres")),
        Fault("redis", 3, server_killed("redis")),
        Fault("forged records and tasks", 6, forged_records),
        Fault("forged notifications", 2, forged_notifications),
        *links("kafka", 6),
    ],
}
TEN_ROUNDS = ("embedded", "servers", "kafka", "embedded", "embedded", "embedded", "servers", "embedded", "kafka", "embedded")
ROUND = 20  # faults


class Round(NamedTuple):
    number: int
    leg: str
    seed: int
    faults: list[Fault]


def planned(seed, kills, *, legs=TEN_ROUNDS, without=()):
    """The rounds of a seed: always the same, and those of more kills begin with those of fewer. `without`: servers that are not here."""
    for number in range(-(-kills // ROUND)):
        leg = legs[number % len(legs)]
        leg = "servers" if leg in without else leg
        chance = random.Random(f"{seed}-{number}-{leg}")
        kinds = [fault for fault in LEGS[leg] if fault.kind.split()[0] not in without]
        faults = chance.choices(kinds, weights=[fault.share for fault in kinds], k=min(ROUND, kills - number * ROUND))
        yield Round(number, leg, seed * 10_000 + number, faults)
