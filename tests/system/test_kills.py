"""Processes killed with SIGKILL under load: acknowledged commands survive, and nothing is recorded twice."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from api.cli.client.api_client import Client
from infrastructure.embedded.supervisor import serves
from tests.chaos.invariants import check_invariants, settle
from tests.chaos.workload import Journal, Technician
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, made_account

KILLS = ("api", "relay", "inference", "api", "projector", "inference", "api", "relay", "projector", "inference")
TECHNICIANS = 4
BETWEEN = (0.2, 1.0)  # seconds
WORK = 10  # acknowledgements between two kills


@pytest.mark.long
def test_ten_kills_lose_no_acknowledgement_and_make_no_result_twice(own_stack, capsys):
    chance = random.Random(7)
    journal, stop = Journal(), threading.Event()
    system = own_stack()
    with system as settings:
        address = made_account(settings, "researcher", email("technician"))
        with Client.sign_in(settings.base_url, address, PASSWORD) as client:
            token = client.credentials.access_token
        technicians = [Technician(settings.base_url, token, journal, seed=seed, stop=stop) for seed in range(TECHNICIANS)]
        for technician in technicians:
            technician.start()
        told = []
        for name in KILLS:
            before = wait_for_work(journal, len(journal.acknowledged) + WORK)
            time.sleep(chance.uniform(*BETWEEN))
            os.kill(system.pid(name), signal.SIGKILL)
            told.append(f"{name} killed after {before} acknowledgements")
            wait_until_running(system, name)
        wait_for_work(journal, len(journal.acknowledged) + WORK)
        stop.set()
        for technician in technicians:
            technician.join(40)
        took = settle(system.settings, within=90)
        checked = check_invariants(system.settings, journal)
    with capsys.disabled():
        print("\n" + "\n".join(told))
        print(
            f"{len(journal.acknowledged)} acknowledgements journalled, {journal.unanswered} requests cut off; settled in {took} s;"
            f" {checked.events} events, {checked.jobs} jobs, {checked.results} answers"
        )
    assert [technician.failure for technician in technicians] == [None] * TECHNICIANS
    assert took is not None, "not every job ended, or the read models do not come to the head"
    assert checked.broken == []
    assert len(journal.acknowledged) > 5 * len(KILLS)


def wait_for_work(journal, acknowledgements, *, within=30.0):
    wait_until(lambda: len(journal.acknowledged) >= acknowledgements, within=within, explain=lambda: "clients get no answers any more")
    return len(journal.acknowledged)


def wait_until_serving(settings, *, within=20.0):
    wait_until(lambda: serves("/health/live")(settings, Path()), within=within, explain=lambda: "the API does not answer again")


def wait_until_running(system, name, *, within=15.0):
    wait_until(lambda: system.pid(name), within=within, ignoring=[LookupError], explain=lambda: f"{name} was not started again")
