"""CPU time, transactions and connections of the embedded system while it receives no requests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks.measure import Row, folder
from benchmarks.stack import children_of
from infrastructure.embedded.postgres.server import OWNER, Postgres

SETTLE = 30.0  # seconds until the work of the start has ended
WATCHED = 120.0  # seconds
COMMITTED = "select xact_commit from pg_stat_database where datname = current_database()"
CONNECTED = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
TICKS = os.sysconf("SC_CLK_TCK")


def rows() -> Iterator[Row]:
    with folder() as home:
        command = [sys.executable, "-m", "api.cli", "up", "--data", str(home / "data"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
            assert up.stdout is not None
            next(line for line in up.stdout if line.startswith("ready:"))
            try:
                time.sleep(SETTLE)
                yield from watched(up.pid, Postgres(home / "data").url(user=OWNER))
            finally:
                os.kill(up.pid, signal.SIGTERM)
                up.wait(15)


def watched(pid: int, url: str) -> Iterator[Row]:
    processes = [pid, *children_of(pid)]
    with psycopg.connect(url, autocommit=True) as connection:
        before, committed = {one: seconds(one) for one in processes}, _number(connection, COMMITTED)
        time.sleep(WATCHED)
        used = {one: seconds(one) - before.get(one, 0.0) for one in {*processes, *children_of(pid)}}
        transactions = (_number(connection, COMMITTED) - committed) / WATCHED
        connections = _number(connection, CONNECTED)
    for one, spent in sorted(used.items(), key=lambda item: -item[1]):
        print(f"{spent / WATCHED:7.2%}  {title(one)}")
    yield Row(name="idle system, of one core", value=100 * sum(used.values()) / WATCHED, unit="%", goal=2, at_least=False)
    yield Row(name="idle system, transactions", value=transactions, unit="/s", goal=8, at_least=False)
    yield Row(name="idle system, connections to Postgres", value=connections, unit="", goal=14, at_least=False)


def seconds(pid: int) -> float:
    """CPU time of a process so far; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-100:]
    except OSError:
        return "ended"


def _number(connection: psycopg.Connection, query: str) -> float:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return float(row[0])
