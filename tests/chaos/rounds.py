"""One round: a new laboratory, its faults one after the other while clients work, and what must hold looked at in the end."""

import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.chaos.laboratory import Laboratory
from tests.chaos.probe import Probe
from tests.chaos.verdict import judged, settle

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
    took = verdict = laboratory = None
    try:
        with Laboratory(home, seed=planned.seed, servers=planned.leg != "embedded", kafka=planned.leg == "kafka") as laboratory:
            try:
                laboratory.work()
                for fault in planned.faults:
                    struck.append(one(laboratory, fault))
                    progress(struck[-1])
                laboratory.stop_work()
                took = settle(laboratory.settings, within=SETTLED_WITHIN)
                verdict = judged(laboratory.settings, laboratory.journal)
            except Exception as error:
                broken.append(f"{type(error).__name__}: {error}")
                print(laboratory.said(), file=sys.stderr)
    except Exception as error:
        broken.append(f"{type(error).__name__}: {error}")
    if laboratory is not None:
        broken += laboratory.failures + ([] if took is not None else ["not every job ended, or the read models do not come to the head"])
    broken += [f"{one.kind}: not back within its time" for one in struck if None in {one.acknowledged, one.visible, one.result}]
    broken += verdict.broken if verdict else []
    if not broken:
        shutil.rmtree(home, ignore_errors=True)
    else:
        print(f"round {planned.number} ({planned.leg}) in {home}:", *broken, sep="\n  ", file=sys.stderr)
    return _summary(planned, laboratory, began, time.monotonic() - clock, struck, took, verdict, broken)


def one(laboratory, fault):
    before = _wait_for_work(laboratory)
    time.sleep(laboratory.chance.uniform(*BETWEEN))
    under_way = laboratory.journal.under_way
    steps = fault.by(laboratory)
    hit = next(steps)
    recovery = Probe(laboratory.url, laboratory.token, laboratory.journal, laboratory.image).recovery(hit.since)
    for _ in steps:
        pass
    return Struck(kind=fault.kind, acknowledged_before=before, under_way=under_way, lasted=round(hit.lasted, 2), **recovery._asdict())


def _wait_for_work(laboratory):
    journal, until = laboratory.journal, time.monotonic() + WORK_WITHIN
    wanted = len(journal.acknowledged) + WORK
    while len(journal.acknowledged) < wanted or not journal.under_way:
        assert time.monotonic() < until, f"clients get no answers any more: {laboratory.failures}"
        time.sleep(0.01)
    return len(journal.acknowledged)


def _summary(planned, laboratory, began, seconds, struck, took, verdict, broken):
    journal = laboratory.journal if laboratory is not None else None
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
        events=verdict.events if verdict else 0,
        jobs=verdict.jobs if verdict else 0,
        results=verdict.results if verdict else 0,
        settled=round(took, 2) if took is not None else None,
        broken=broken,
    )
