"""Hanging servers, disturbed links, full or dishonest stores, each under load: the short form of `make chaos`."""

import pytest

from tests.chaos.faults import LEGS, Round
from tests.chaos.rounds import told
from tests.chaos.servers import s3_program

ON_SERVERS = (
    "postgres link: half-open",
    "s3 link: full",
    "redis link: half-open",
    "s3 link: cut",
    "postgres link: reset",
    "http link: half-open",
    "s3 link: half-open",
    "postgres link: drop",
    "postgres, immediate stop",
    "redis",
    "files swapped, and put back",
    "forged notifications",
)
EMBEDDED = (
    "forged records and tasks",
    "files swapped, and put back",
    "forged notifications",
    "disk full, in the middle of a file",
    "postgres, immediate stop",
    "projector, a standby there",
    "supervisor",
    "redis",
    "broker",
)


@pytest.mark.long
@pytest.mark.parametrize(("leg", "kinds"), [("servers", ON_SERVERS), ("embedded", EMBEDDED)])
def test_what_was_acknowledged_outlives_every_fault_and_nothing_is_there_twice(leg, kinds, capsys):
    there = {fault.kind: fault for fault in LEGS[leg] if s3_program() or not fault.kind.startswith("s3")}
    chosen = [there[kind] for kind in kinds if kind in there]
    found = told(Round(0, leg, 7, chosen), progress=lambda _: None)
    with capsys.disabled():
        shown = (f"{one.kind}: visible after {one.visible} s, a result after {one.result} s" for one in found.struck)
        print("", f"{sum(found.acknowledgements.values())} acknowledgements, {found.events} events, {found.jobs} jobs", *shown, sep="\n")
    assert found.broken == []
    assert len(found.struck) == len(chosen)
