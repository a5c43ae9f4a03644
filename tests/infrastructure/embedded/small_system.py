"""The real embedded servers with small scripts as processes; `python -m` it with a data folder to run `up`."""

import json
import sys
from pathlib import Path

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.supervisor import ProcessDefinition, is_ready_by_file, up

STEADY = """
import json, os, signal, sys
from pathlib import Path
from infrastructure.process_lifecycle import signal_ready
told = Path(os.environ["BIOSCOPE_DATA"], sys.argv[1] + ".env")
half = told.with_suffix(".half")
half.write_text(json.dumps(dict(os.environ)))
half.rename(told)
signal.signal(signal.SIGTERM, lambda *_: (print(sys.argv[1], "told to stop", flush=True), sys.exit(0)))
signal_ready()
print("steady", flush=True)
while True:
    signal.pause()
"""
STUBBORN = """
import signal
from infrastructure.process_lifecycle import signal_ready
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal_ready()
while True:
    signal.pause()
"""
WITH_A_CHILD = """
import multiprocessing, os, signal
from infrastructure.process_lifecycle import die_with_parent, signal_ready
def work():
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
multiprocessing.get_context("fork").Process(target=work).start()
signal_ready()
signal.pause()
"""


def process(name, script, **how):
    return ProcessDefinition(name=name, argv=(sys.executable, "-c", script, name), ready=is_ready_by_file, **how)


FOLLOWER = process("follower", STEADY, follows_broker=True)
STEADY_API = process("api", STEADY, stops_first=True)
MIXED = (FOLLOWER, process("stubborn", STUBBORN, grace=1.0), process("pool", WITH_A_CHILD), STEADY_API)
ALL_STUBBORN = tuple(process(name, STUBBORN) for name in ("relay", "projector", "inference", "api"))


def nothing(_: Settings) -> None:
    """No migrations."""


def environment_of(data: Path, name: str) -> dict[str, str]:
    return json.loads((data / f"{name}.env").read_text())


if __name__ == "__main__":
    sys.exit(
        up(
            Settings(data=Path(sys.argv[1]), port=0),
            processes=ALL_STUBBORN if "--stubborn" in sys.argv else MIXED,
            prepare=nothing,
            on_ready=lambda _: print("ready", flush=True),
            verbose="--verbose" in sys.argv,
        )
    )
