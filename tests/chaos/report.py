"""The report of a chaos run: one line, a page of the documentation, and JSON."""

import os
import platform
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from tests.chaos.faults import LEGS, ROUND
from tests.chaos.probe import GIVEN_UP_AFTER

STANDBY = "projector, a standby there"
STANDBY_WITHIN = 2.0
PAGE = Path(__file__).with_name("page.md")


def summary(done):
    """One line."""
    struck = [one for told in done for one in told.struck]
    broken = [what for told in done for what in told.broken]
    acknowledged = sum(sum(told.acknowledgements.values()) for told in done)
    end = "nothing lost, everything holds" if not broken else f"{len(broken)} BROKEN: {'; '.join(broken)[:500]}"
    return f"{len(struck)} faults in {len(done)} laboratories, {acknowledged} acknowledgements: {end}"


def written(done, *, page: Path, data: Path, seed, lacking):
    """Write the page and its JSON, unless no fault was made."""
    if not any(told.struck for told in done):
        return
    figures = measured(done)
    for path in (page, data):
        path.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(paged(done, figures, seed=seed, lacking=lacking))
    data.write_bytes(msgspec.json.format(msgspec.json.encode(figures | {"seed": seed, "machine": machine()}), indent=1) + b"\n")


def measured(done):
    """All figures of the page, by name."""
    kinds = defaultdict(list)
    for told in done:
        for one in told.struck:
            kinds[told.leg, one.kind].append(one)
    total = Counter()
    for told in done:
        total.update(told.acknowledgements)
    return {
        "began": min(told.began for told in done),
        "ended": max(told.began for told in done),
        "faults": sum(len(told.struck) for told in done),
        "acknowledgements": dict(total),
        "cut_off": sum(told.cut_off for told in done),
        "statuses": dict(sum((Counter(told.statuses) for told in done), Counter())),
        "events": sum(told.events for told in done),
        "jobs": sum(told.jobs for told in done),
        "results": sum(told.results for told in done),
        "settled_worst": max((told.settled for told in done if told.settled is not None), default=None),
        "losses": sum("was acknowledged at" in what for told in done for what in told.broken),
        "broken": [f"round {told.number} ({told.leg}): {what}" for told in done for what in told.broken],
        "kinds": [about(leg, kind, struck) for (leg, kind), struck in sorted(kinds.items(), key=_in_order)],
    }


def about(leg, kind, struck):
    visible, result = ([getattr(one, name) for one in struck if getattr(one, name) is not None] for name in ("visible", "result"))
    return {
        "leg": leg,
        "kind": kind,
        "times": len(struck),
        "recovered": sum(one.visible is not None and one.result is not None for one in struck),
        "under_way_least": min(one.under_way for one in struck),
        "visible_median": median(visible),
        "visible_worst": max(visible, default=None),
        "result_median": median(result),
        "result_worst": max(result, default=None),
    }


def paged(done, figures, *, seed, lacking):
    kinds = figures["kinds"]
    began, ended = figures["began"], figures["ended"]
    return PAGE.read_text().format(
        kills=figures["faults"],
        seed=seed,
        days=f"{began:%-d %B %Y}" if began.date() == ended.date() else f"{began:%-d %B} to {ended:%-d %B %Y}",
        machine=machine(),
        rounds=len(done),
        under_way=f"at least {min(one['under_way_least'] for one in kinds)}",
        faults=figures["faults"],
        acknowledgements=f"{sum(figures['acknowledgements'].values()):,}",
        cut_off=f"{figures['cut_off']:,}",
        events=f"{figures['events']:,}",
        jobs=f"{figures['jobs']:,}",
        results=f"{figures['results']:,}",
        losses=figures["losses"],
        broken=len(figures["broken"]),
        verdict="**Everything held.**" if not figures["broken"] else "\n".join(f"- broken: {what}" for what in figures["broken"]),
        table="\n".join(map(_row, kinds)),
        standby=_standby(kinds),
        mixes=_mixes(Counter(told.leg for told in done)),
        round=ROUND,
        full="6,000",
        lacking="".join(f"\n- There was no {name} on this machine, so its faults are left out." for name in sorted(lacking)),
    )


def _row(one):
    figures = (one[name] for name in ("visible_median", "visible_worst", "result_median", "result_worst"))
    shown = ["never" if figure is None else f"{figure:.2f}" for figure in figures]
    missed = f" ({one['times'] - one['recovered']} not within {GIVEN_UP_AFTER:.0f} s)" if one["recovered"] < one["times"] else ""
    return f"| {one['leg']} | {one['kind']} | {one['times']}{missed} | {' | '.join(shown)} |"


def _standby(kinds):
    found = [one for one in kinds if one["kind"] == STANDBY]
    if not found or found[0]["visible_worst"] is None:
        return "No projector with a standby was killed in this run."
    worst = found[0]["visible_worst"]
    held = "reached" if worst <= STANDBY_WITHIN else "missed on this machine"
    return (
        f"After a projector with a standby was killed, commands were visible within {worst:.2f} s at worst.\n"
        f"The goal of {STANDBY_WITHIN:.0f} s was {held}."
    )


def _mixes(rounds):
    """A table of all faults: of how many out of 100 each setup has it."""
    shares = {leg: {fault.kind: str(fault.share) for fault in LEGS[leg]} for leg in LEGS}
    kinds = list(dict.fromkeys(kind for of_leg in shares.values() for kind in of_leg))
    head = [f"{leg} ({rounds[leg]} installations)" for leg in LEGS]
    rows = [["of 100 faults", *head], ["---"] * (len(head) + 1), *([kind, *(shares[leg].get(kind, "") for leg in LEGS)] for kind in kinds)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine():
    """The machine in words, so that a reader can judge the times; no names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{os.cpu_count()} shared {platform.machine()} cores with {memory:.0f} GiB of memory"
    return f"{cores}, {platform.system()}, Python {platform.python_version()}"


def median(values):
    return statistics.median(values) if values else None


def _in_order(item):
    (leg, kind), _ = item
    return list(LEGS).index(leg), [fault.kind for fault in LEGS[leg]].index(kind)
