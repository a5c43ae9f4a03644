"""`make overload`: four times what the API can take, for 60 s; slow clients; SIGTERM while it works."""

import argparse
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop
from rich.console import Console

from api.cli.system import prepare
from api.client import Client
from infrastructure.supervisor import Stack
from tests.overload.load import Load
from tests.overload.trial import TIMES, beside_slow_clients, drained, large_picture, overloaded
from tests.system.conftest import PASSWORD, made_account, stack_settings

SLOWER_MOST = 3.0
ENDS_WITHIN = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make overload")
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bioscope-overload-") as folder:
        stack = Stack(msgspec.structs.replace(stack_settings(Path(folder) / "data"), access_ttl=3600), prepare=prepare)
        with stack as settings, Console(stderr=True).status("overload") as status:
            address = made_account(settings, "researcher", "load@example.org")
            with Client.sign_in(settings.base_url, address, PASSWORD) as client:
                load = Load(settings.base_url, client.credentials.access_token)
                large = address_of_large_picture(client, Path(folder))
            return uvloop.run(_tried(load, stack, given.seconds, large, status))


def address_of_large_picture(client, folder):
    """The path of its signed address."""
    image = client.upload(client.create_dataset("large"), large_picture(folder)).id
    parts = urlsplit(client.get(f"/api/images/{image}/download")["url"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


async def _tried(load, stack, seconds, large, status):
    over = await overloaded(load, stack.pid("api"), seconds=seconds)
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
    status.update("SIGTERM")
    ended = await drained(load, stack.pid("api"))
    print(f"SIGTERM: {ended.answered} answered, {len(ended.cut_off)} cut off {ended.cut_off}, ended after {ended.ended_after:.1f} s")
    broken = [*over.broken, *(["slow clients hold others up"] if slowed.beside_p99 > SLOWER_MOST * slowed.before_p99 + 0.1 else [])]
    broken += [f"{slowed.refused} refused beside slow clients"] if slowed.refused else []
    broken += [f"{len(ended.cut_off)} requests cut off by SIGTERM"] if ended.cut_off else []
    broken += [f"SIGTERM took {ended.ended_after:.1f} s"] if ended.ended_after > ENDS_WITHIN else []
    print("everything holds" if not broken else "BROKEN: " + "; ".join(broken))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
