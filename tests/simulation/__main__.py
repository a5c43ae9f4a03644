"""`make simulate SEEDS=10000`, or `SEED=472` to repeat one run and print every step."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.simulate import broken_in, run

PIECE, SAY = 20, 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="tell the story of this one")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    return _tell(given.seed) if given.seed is not None else _search(range(given.first, given.first + given.seeds), given.processes)


def _tell(seed: int) -> int:
    world = run(seed)
    print(world.plan, *world.told, sep="\n")
    print(f"seed {seed}: {'; '.join(world.broken) or 'everything holds'}")
    return bool(world.broken)


def _search(seeds: range, processes: int | None) -> int:
    broken: dict[int, list[str]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        bar = progress.add_task("seeds", total=len(seeds))
        pieces = [seeds[start : start + PIECE] for start in range(0, len(seeds), PIECE)]
        for piece, found in zip(pieces, pool.map(broken_in, pieces), strict=True):
            broken |= found
            for seed, what in found.items():
                progress.print(f"seed {seed}: {'; '.join(what)}\n  again: make simulate SEED={seed}")
            progress.advance(bar, len(piece))
            if not progress.console.is_terminal and (piece.stop - seeds.start) % SAY == 0:
                print(f"{piece.stop - seeds.start} of {len(seeds)} seeds, {len(broken)} broken", flush=True)
    print(f"{len(seeds)} seeds from {seeds.start} on: {len(broken)} broken {sorted(broken) or ''}".rstrip())
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
