"""Calls in several processes: results in order, and no process that outlives an interrupt."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest

from domain.errors import Taken, Unavailable
from infrastructure.audit.parallel import results_in_order
from tests.infrastructure.interrupted_calls import begin
from tests.rigs.waiting import wait_until

ROOT = Path(__file__).parents[2]
FOREVER = 600.0


def slower_for_smaller(number):
    time.sleep(0.05 / (number + 1))
    return number


def refuse(number):
    raise Taken(f"{number} is taken", scope="numbers")


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


in_two_processes = partial(results_in_order, processes=2, initializer=begin)


def test_results_come_in_the_order_of_the_items():
    with in_two_processes(slower_for_smaller, range(6)) as results:
        assert list(results) == list(range(6))
    assert active_children() == []


def test_what_a_call_raises_is_raised_here_with_its_fields():
    with pytest.raises(Taken, match="0 is taken") as caught, in_two_processes(refuse, range(2)) as results:
        list(results)
    assert caught.value.scope == "numbers"


def test_a_process_that_dies_makes_the_results_unavailable():
    with pytest.raises(Unavailable, match="has died"), in_two_processes(die, range(2)) as results:
        list(results)


def test_calls_in_progress_are_not_waited_for_when_no_more_results_are_needed():
    with in_two_processes(time.sleep, [0.0, FOREVER, FOREVER]) as results:
        assert next(results) is None
    assert active_children() == []


def processes_of(group):
    """The processes of a process group that have not ended."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(group)], capture_output=True, text=True, check=False).stdout
    return [line for line in found.splitlines() if " Z" not in line]


@pytest.mark.parametrize("moment", ["begun", "computing", "result"])
@pytest.mark.parametrize("receiver", [os.kill, os.killpg], ids=["the process", "its group"])
def test_an_interrupt_ends_all_processes_at_once_with_the_usual_exit_code_and_message(moment, receiver):
    command = [sys.executable, "-m", "tests.infrastructure.interrupted_calls", str(FOREVER)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as program:
        try:
            while not program.stdout.readline().startswith(moment):
                assert program.poll() is None
            receiver(program.pid, signal.SIGINT)
            _, said = program.communicate(timeout=30)
            assert (program.returncode, said) == (1, "\nAborted!\n")
            wait_until(lambda: processes_of(program.pid) == [])  # the kernel needs a moment to end what is killed
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
