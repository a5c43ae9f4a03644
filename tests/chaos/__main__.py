"""`make chaos KILLS=1000`: cause random faults under load, and check the invariants. It continues where it was interrupted."""

import argparse
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.chaos.faults import LEGS, TEN_ROUNDS, planned
from tests.chaos.report import summary, written
from tests.chaos.rounds import Told, told
from tests.chaos.servers import s3_program
from tests.kafka.fixture import what_is_lacking


class State(msgspec.Struct):
    seed: int
    rounds: dict[int, Told] = {}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=Path("build/chaos.json"), help="what was done already; goes on from there")
    parser.add_argument("--leg", choices=list(LEGS), help="only rounds of this one")
    parser.add_argument("--page", type=Path, default=Path("docs/reliability.md"))
    parser.add_argument("--json", type=Path, default=Path("docs/reliability.json"))
    given = parser.parse_args()
    state = kept(given.state, given.seed)
    lacking = lacking_here()
    legs = (given.leg,) if given.leg else TEN_ROUNDS
    rounds = list(planned(given.seed, given.kills, legs=legs, without=lacking))
    _carry_out([one for one in rounds if one.number not in state.rounds], state, given)
    done = [state.rounds[one.number] for one in rounds]
    written(done, page=given.page, data=given.json, seed=given.seed, lacking=lacking)
    print(summary(done))
    return any(one.broken for one in done)


def _carry_out(rounds, state, given):
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("faults", total=given.kills, completed=sum(len(one.struck) for one in state.rounds.values()))

        def step(struck):
            progress.advance(bar)
            progress.print(f"{struck.kind}: visible again after {struck.visible} s, a result after {struck.result} s", highlight=False)

        for one in rounds:
            progress.update(bar, description=one.leg)
            state.rounds[one.number] = told(one, progress=step)
            keep(given.state, state)


def kept(path, seed):
    """What was done already, of this seed."""
    if path.exists():
        state = msgspec.json.decode(path.read_bytes(), type=State)
        if state.seed == seed:
            return state
        sys.exit(f"{path} is of seed {state.seed}: name another --state, or go on with --seed {state.seed}")
    return State(seed)


def keep(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
    part.replace(path)


def lacking_here():
    """Servers that cannot be had on this machine; their share goes to the others, and the report says so."""
    return {name for name, there in (("s3", s3_program()), ("kafka", what_is_lacking() is None)) if not there}


if __name__ == "__main__":
    sys.exit(main())
