"""Follow the events in a program of your own: it counts results, by day and label, in a small database of its own.

    export BIOSCOPE_TOKEN=$(bioscope tokens create daily-counts --scope events:read)
    python examples/consumer.py counts.db --url http://127.0.0.1:8000 --kafka 127.0.0.1:9092
    python examples/consumer.py counts.db --show

Without --kafka it follows over HTTP alone. Kill it whenever you like: the counts are those of the log, each result once.

Nothing is counted that the log does not hold: the hash of each event that comes by Kafka covers the event and the hash of the one before
it, and is calculated anew here (`linked`). What does not follow from what was counted last is read over HTTP. With --verify, for which
the package `cryptography` is needed, the signed heads of the log are compared with the hashes that were seen.

What makes that so is short. The position stands beside the counts and moves in the same transaction (`Counts.apply`); an event
at or before it was seen already; an event further on means that some are missing, and those are read over HTTP (`catch_up`).
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import sqlite3
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

TOPIC = "bioscope.events"
KNOWN = {"ChunkJudged": 1}  # what is counted, in the schema version that is understood here
PAGE = 500
QUIET = 1.0  # seconds of silence after which the log itself is asked: a lost broker costs latency, never an event
REST = 1.0  # seconds after a failure
LARGEST = 4 * 1024 * 1024  # bytes: more than the topic takes

SCHEMA = """
begin immediate;
create table if not exists place (only_row integer primary key check (only_row = 1), position integer not null);
create table if not exists hashes (position integer primary key, hash text not null);
create table if not exists counts (day text, label text, results integer not null, primary key (day, label));
insert or ignore into place values (1, 0);
commit;
"""
COUNT = "insert into counts values (?, ?, 1) on conflict do update set results = results + 1"


class Event(NamedTuple):
    """`previous_hash` is known of what came by Kafka."""

    position: int
    type: str
    schema_version: int
    data: dict[str, Any]
    hash: str
    previous_hash: str = ""


class Gap(Exception):
    """Events are missing before this one, or it does not follow the one before it."""


class Untrue(Exception):
    """A record is not what the log holds."""


class Counts:
    """How many results there were, and up to which position of the log they are counted."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("pragma journal_mode = wal")
        self.db.executescript(SCHEMA)

    @property
    def position(self) -> int:
        return int(self.db.execute("select position from place").fetchone()[0])

    def apply(self, events: list[Event]) -> None:
        """Count what follows our position, and move it, in one transaction; what was counted before is passed over. Raises Gap."""
        self.db.execute("begin immediate")
        try:
            position = self.position
            for event in events:
                if event.position > position + 1:
                    raise Gap
                if event.position == position + 1:
                    if event.previous_hash and event.previous_hash != self.hash_at(position):
                        raise Gap
                    self._count(event)
                    self.db.execute("insert or replace into hashes values (?, ?)", (event.position, event.hash))
                    position = event.position
            self.db.execute("update place set position = ?", (position,))
            self.db.execute("commit")
        finally:
            if self.db.in_transaction:
                self.db.execute("rollback")

    def hash_at(self, position: int) -> str:
        """Empty where it was not kept, as by an older copy of this program: then the log is asked."""
        if position == 0:
            return hashlib.sha256(b"bioscope").hexdigest()
        row = self.db.execute("select hash from hashes where position = ?", (position,)).fetchone()
        return row[0] if row else ""

    def _count(self, event: Event) -> None:
        if event.type not in KNOWN:
            return
        if event.schema_version != KNOWN[event.type]:
            sys.exit(
                f"position {event.position} is a {event.type} of schema version {event.schema_version}: this program is too old for it"
            )
        self.db.executemany(COUNT, [(event.data["at"][:10], result["label"]) for result in event.data["results"]])

    def table(self) -> list[tuple[str, str, int]]:
        return self.db.execute("select day, label, results from counts order by day, label").fetchall()


class Feed:
    """The log over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token

    def after(self, position: int, *, wait: float = 0.0) -> list[Event]:
        """The events that follow, waiting for one where there is none yet. Raises OSError."""
        found = self._get("/api/events", timeout=wait + 10, after=position, limit=PAGE, wait=wait, sealed="true")
        return [Event(one["position"], one["type"], one["schema_version"], one["data"], one["hash"]) for one in found["events"]]

    def heads(self, position: int) -> dict[str, Any]:
        """The signed heads that follow, and the key that verifies them. Raises OSError."""
        return self._get("/api/events/heads", timeout=10, after=position, limit=PAGE)

    def _get(self, path: str, *, timeout: float, **query: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}{path}?{urllib.parse.urlencode(query)}", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refused:
            if refused.code in {401, 403}:
                sys.exit(f"the feed is refused ({refused.code}): BIOSCOPE_TOKEN must be a token with the scope events:read")
            raise


def catch_up(counts: Counts, feed: Feed, *, wait: float = 0.0) -> None:
    """Everything that the log has by now."""
    while events := feed.after(counts.position, wait=wait):
        counts.apply(events)
        told(counts, "http")
        wait = 0.0


def follow_http(counts: Counts, feed: Feed) -> NoReturn:
    while True:
        try:
            catch_up(counts, feed, wait=20.0)
        except OSError as error:
            print(f"again in {REST:.0f} s: {error}", file=sys.stderr)
            time.sleep(REST)


async def follow_kafka(counts: Counts, feed: Feed, brokers: str) -> None:
    """From the topic's end on, and from the log whatever is not heard there."""
    kept_here = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "latest"}
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=brokers, max_partition_fetch_bytes=LARGEST, **kept_here)
    try:
        await consumer.start()
        await consumer.seek_to_end()
        catch_up(counts, feed)
        while True:
            heard = await consumer.getmany(timeout_ms=int(QUIET * 1000))
            try:
                events = sorted(event_of(record) for records in heard.values() for record in records)
                counts.apply(events)
            except (Gap, Untrue):
                events = []
                catch_up(counts, feed)
            if events:
                told(counts, "kafka")
            else:
                catch_up(counts, feed)
    finally:
        await consumer.stop()


def event_of(record: Any) -> Event:
    """Raises Untrue for a record whose hash is not that of what it holds."""
    try:
        about = {name: value.decode() for name, value in record.headers}
        if linked(about, record.value) != about["ce_hash"]:
            raise Untrue
        told = about["ce_type"], int(about["ce_schemaversion"]), json.loads(record.value)
        return Event(int(about["ce_position"]), *told, about["ce_hash"], about["ce_previoushash"])
    except (KeyError, ValueError, TypeError, struct.error) as error:
        raise Untrue from error


def linked(about: dict[str, str], data: bytes) -> str:
    """SHA-256 over the previous hash and every stored field, each behind its length (4 bytes, big-endian)."""
    since_1970 = datetime.fromisoformat(about["ce_time"]) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    fields = (
        struct.pack(">q", int(about["ce_position"])),
        uuid.UUID(about["ce_subject"]).bytes,
        struct.pack(">i", int(about["ce_streamversion"])),
        about["ce_type"].encode(),
        struct.pack(">i", int(about["ce_schemaversion"])),
        data,
        about["ce_meta"].encode(),
        uuid.UUID(about["ce_id"]).bytes,
        struct.pack(">q", since_1970 // timedelta(microseconds=1)),
    )
    framed = b"".join(struct.pack(">i", len(field)) + field for field in fields)
    return hashlib.sha256(bytes.fromhex(about["ce_previoushash"]) + framed).hexdigest()


def signed_by(key: Any, head: dict[str, Any]) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only --verify needs it

    try:
        key.verify(base64.b64decode(head["signature"]), head["signed_text"].encode())
    except InvalidSignature:
        return False
    return True


def verify(counts: Counts, feed: Feed) -> int:
    """Compare the hashes that were seen with the signed heads of the log; how many agreed. Raises Untrue, OSError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    agreed, position = 0, 0
    while (found := feed.heads(position))["heads"]:
        keys = [Ed25519PublicKey.from_public_bytes(base64.b64decode(key)) for key in found["public_keys"]]
        for head in found["heads"]:
            position = head["position"]
            if not any(signed_by(key, head) for key in keys):
                raise Untrue(f"the head at position {position} is not signed by this installation")
            seen = counts.hash_at(position)
            if not head["signed_text"].startswith(f"{position}:{seen or head['hash']}:"):
                raise Untrue(f"at position {position} the log was another one when it was signed than when it was followed")
            agreed += bool(seen)
    return agreed


async def follow(counts: Counts, feed: Feed, brokers: str) -> NoReturn:
    while True:
        try:
            await follow_kafka(counts, feed, brokers)
        except (KafkaError, OSError, Gap) as error:
            print(f"again in {REST:.0f} s: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(REST)


def told(counts: Counts, source: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} at position {counts.position}, by {source}", file=sys.stderr, flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("database", help="the file that the counts are kept in")
    asked.add_argument("--url", default="http://127.0.0.1:8000", help="of the API [%(default)s]")
    asked.add_argument("--kafka", default="", metavar="HOST:PORT", help="brokers, separated by commas [HTTP alone]")
    asked.add_argument("--show", action="store_true", help="print the counts and leave")
    asked.add_argument(
        "--verify", action="store_true", help="compare the hashes that were seen with the signed heads of the log, and leave"
    )
    given = asked.parse_args()
    counts = Counts(given.database)
    if given.show:
        print("\n".join(f"{day}  {results:8}  {label}" for day, label, results in counts.table()) or "nothing was counted yet")
        return
    token = os.environ.get("BIOSCOPE_TOKEN") or sys.exit("set BIOSCOPE_TOKEN: bioscope tokens create NAME --scope events:read")
    feed = Feed(given.url, token)
    if given.verify:
        try:
            print(f"{verify(counts, feed)} signed heads agree with what was followed")
        except Untrue as untrue:
            sys.exit(f"the record is not what was followed: {untrue}")
        return
    try:
        asyncio.run(follow(counts, feed, given.kafka)) if given.kafka else follow_http(counts, feed)
    except KeyboardInterrupt:
        print(f"stopped at position {counts.position}", file=sys.stderr)


if __name__ == "__main__":
    main()
