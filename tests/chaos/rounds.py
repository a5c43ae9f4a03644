"""One round: a new installation, its faults one after the other while clients work, and a check of the invariants at the end."""

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.chaos.bioscope_up import BioscopeUp
from tests.chaos.invariants import check_invariants, settle
from tests.chaos.probe import Probe

WORK = 10  # acknowledgements between two faults
WORK_WITHIN = 90.0
BETWEEN = (0.0, 0.7)  # seconds
SETTLED_WITHIN = 180.0


class Struck(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that happened: `under_way` requests at that moment, and seconds until it worked again (None: not at all)."""

    kind: str
    acknowledged_before: int
    under_way: int
    lasted: float
    acknowledged: float | None
    visible: float | None
    result: float | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a round. `broken` is empty where everything holds."""

    number: int
    leg: str
    began: datetime
    seconds: float
    struck: list[Struck]
    acknowledgements: dict[str, int]
    cut_off: int
    statuses: dict[int, int]
    events: int
    jobs: int
    results: int
    settled: float | None
    broken: list[str]


def told(planned, *, progress):
    """Carry it out. Its folder stays where something is broken."""
    home = Path(tempfile.mkdtemp(prefix="bioscope-chaos-"))
    began, clock, struck, broken = datetime.now(UTC), time.monotonic(), [], []
    took = checked = stack = None
    try:
        with BioscopeUp(home, seed=planned.seed, servers=planned.leg != "embedded", kafka=planned.leg == "kafka") as stack:
            try:
                stack.work()
                for fault in planned.faults:
                    struck.append(one(stack, fault))
                    progress(struck[-1])
                stack.stop_work()
                took = settle(stack.settings, within=SETTLED_WITHIN)
                checked = check_invariants(stack.settings, stack.journal)
            except Exception as error:
                broken.append(f"{type(error).__name__}: {error}")
                print(stack.said(), file=sys.stderr)
    except Exception as error:
        broken.append(f"{type(error).__name__}: {error}")
    if stack is not None:
        broken += stack.failures + ([] if took is not None else ["not every job ended, or the read models do not come to the head"])
    broken += [f"{one.kind}: not back within its time" for one in struck if None in {one.acknowledged, one.visible, one.result}]
    broken += checked.broken if checked else []
    if not broken:
        shutil.rmtree(home, ignore_errors=True)
    else:
        print(f"round {planned.number} ({planned.leg}) in {home}:", *broken, sep="\n  ", file=sys.stderr)
    return _summary(planned, stack, began, time.monotonic() - clock, struck, took, checked, broken)


def one(stack, fault):
    before = _wait_for_work(stack)
    time.sleep(stack.chance.uniform(*BETWEEN))
    under_way = stack.journal.under_way
    steps = fault.by(stack)
    hit = next(steps)
    recovery = Probe(stack.url, stack.token, stack.journal, stack.image).recovery(hit.since)
    for _ in steps:
        pass
    return Struck(kind=fault.kind, acknowledged_before=before, under_way=under_way, lasted=round(hit.lasted, 2), **recovery._asdict())


def _wait_for_work(stack):
    journal, until = stack.journal, time.monotonic() + WORK_WITHIN
    wanted = len(journal.acknowledged) + WORK
    while len(journal.acknowledged) < wanted or not journal.under_way:
        assert time.monotonic() < until, f"clients get no answers any more: {stack.failures}"
        time.sleep(0.01)
    return len(journal.acknowledged)


def _summary(planned, stack, began, seconds, struck, took, checked, broken):
    journal = stack.journal if stack is not None else None
    kinds = [one.kind for one in journal.acknowledged] if journal else []
    return Told(
        number=planned.number,
        leg=planned.leg,
        began=began,
        seconds=round(seconds, 1),
        struck=struck,
        acknowledgements={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        cut_off=journal.unanswered if journal else 0,
        statuses=dict(sorted(journal.statuses.items())) if journal else {},
        events=checked.events if checked else 0,
        jobs=checked.jobs if checked else 0,
        results=checked.results if checked else 0,
        settled=round(took, 2) if took is not None else None,
        broken=broken,
    )
