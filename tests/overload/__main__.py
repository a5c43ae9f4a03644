"""`make overload`: four times the API's capacity for 60 s, unauthenticated clients at every limit, slow clients, SIGTERM under load."""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.client.api_client import Client
from api.cli.stack import prepare
from infrastructure.embedded.supervisor import SupervisedStack
from tests.overload import network
from tests.overload.load import Load
from tests.overload.strangers import ALL, CASES, NORMAL_WITHIN, Strangers, User, beside
from tests.overload.trial import TIMES, beside_slow_clients, drained, large_picture, overloaded
from tests.system.conftest import PASSWORD, made_account, stack_settings

SLOWER_MOST = 3.0
ENDS_WITHIN = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make overload")
    parser.add_argument("--seconds", type=float, default=60, help="how long four times as much is asked for")
    parser.add_argument("--each", type=float, default=20, help="how long strangers stay at each limit")
    parser.add_argument("--only", choices=["strangers", "load"], help="one part of it")
    parser.add_argument("--case", action="append", choices=[*CASES, ALL], help="one of the limits; may be repeated")
    given = parser.parse_args()
    has_ipv6 = network.enter()
    with tempfile.TemporaryDirectory(prefix="bioscope-overload-") as folder:
        changes = {"access_ttl": 3600, "host": "::" if has_ipv6 else "127.0.0.1"}
        stack = SupervisedStack(msgspec.structs.replace(stack_settings(Path(folder) / "data"), **changes), prepare=prepare)
        with stack as settings, Console(stderr=True).status("overload") as status:
            url = f"http://127.0.0.1:{settings.port}"
            address = made_account(settings, "researcher", "load@example.org")
            broken = []
            if given.only != "strangers":
                with Client.sign_in(url, address, PASSWORD) as client:
                    load = Load(url, client.credentials.access_token)
                    large = address_of_large_picture(client, Path(folder))
                broken += uvloop.run(_loaded(load, stack.pid("api"), given.seconds, large, status))
            if given.only != "load":
                broken += _beside_strangers(
                    settings, url, address, stack.pid("api"), given.each, given.case or (*CASES, ALL), has_ipv6, status
                )
            if given.only != "strangers":
                status.update("SIGTERM")
                broken += uvloop.run(_ended(load, stack.pid("api")))
    print("everything holds" if not broken else "BROKEN: " + "; ".join(broken))
    return bool(broken)


def _beside_strangers(settings, url, address, pid, seconds, cases, has_ipv6, status):
    families = {"IPv4": network.IPV4} | ({"IPv6": network.IPV6} if has_ipv6 else {})
    table = Table("strangers take 110 % of", "from", "list", "upload", "run (p95)", "failed", "memory", "normal after")
    broken = []
    with User(url, address, PASSWORD) as user:
        user.does(5.0)  # what is made once is made
        for (family, addresses), case in product(families.items(), cases):
            status.update(f"strangers: {case}, {family}")
            place = ("::1" if family == "IPv6" else "127.0.0.1", settings.port)
            found = beside(case, Strangers(place, settings, addresses, address), user, pid, seconds=seconds)
            times = [f"{found.seconds[what] * 1000:.0f} ms" for what in ("list", "upload", "run")]
            normal = f"not within {NORMAL_WITHIN:.0f} s" if found.normal_after is None else f"{found.normal_after:.0f} s"
            table.add_row(case, family, *times, str(len(found.failed)), f"{found.grown / 2**20:+.0f} MiB", normal)
            broken += [f"{case}, {family}: {what}" for what in found.broken]
    Console(width=140).print(table)
    if not has_ipv6:
        print("IPv6 was left out: this system permits no network of one's own (it needs `unshare`, `ip` and namespaces)")
    return broken


def address_of_large_picture(client, folder):
    """The path of its signed address."""
    image = client.upload(client.create_dataset("large"), large_picture(folder)).id
    parts = urlsplit(client.get(f"/api/images/{image}/download")["url"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


async def _loaded(load, pid, seconds, large, status):
    over = await overloaded(load, pid, seconds=seconds)
    normal = "never" if over.normal_after is None else f"after {over.normal_after:.1f} s"
    print(
        f"it takes {over.capacity:.0f} requests/s (p99 {over.busy_p99 * 1000:.0f} ms);"
        f" {over.offered:.0f}/s offered for {seconds:.0f} s, {TIMES} times as many: {over.accepted:.0f}/s accepted"
        f" (p50 {over.accepted_p50 * 1000:.0f} ms, p99 {over.accepted_p99 * 1000:.0f} ms: {over.accepted_p99 / over.busy_p99:.1f} times as"
        f" long), answers {over.statuses},"
        f" {over.held_back} never sent (all connections busy), the API grew by {over.grown / 2**20:.0f} MiB, as before {normal}"
    )
    status.update("slow clients")
    slowed = await beside_slow_clients(load, large)
    print(
        f"beside slow clients: p99 {slowed.beside_p99 * 1000:.0f} ms (before {slowed.before_p99 * 1000:.0f} ms), {slowed.refused} refused"
    )
    broken = [*over.broken, *(["slow clients hold others up"] if slowed.beside_p99 > SLOWER_MOST * slowed.before_p99 + 0.1 else [])]
    return broken + ([f"{slowed.refused} refused beside slow clients"] if slowed.refused else [])


async def _ended(load, pid):
    ended = await drained(load, pid)
    print(f"SIGTERM: {ended.answered} answered, {len(ended.cut_off)} cut off {ended.cut_off}, ended after {ended.ended_after:.1f} s")
    broken = [f"{len(ended.cut_off)} requests cut off by SIGTERM"] if ended.cut_off else []
    return broken + ([f"SIGTERM took {ended.ended_after:.1f} s"] if ended.ended_after > ENDS_WITHIN else [])


if __name__ == "__main__":
    sys.exit(main())
