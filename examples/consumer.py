"""An example of a program that follows the events. It counts results by day and label in an SQLite database.

    export BIOSCOPE_TOKEN=$(bioscope tokens create daily-counts --scope events:read)
    python examples/consumer.py counts.db --url http://127.0.0.1:8000 --kafka 127.0.0.1:9092
    python examples/consumer.py counts.db --show

Without --kafka it uses HTTP alone. You may kill it at any moment: each result of the log is counted exactly once.

- The position is stored with the counts, in the same transaction (`Counts.apply`). An event at or before the position is skipped. After
  a gap, the missing events are read over HTTP (`catch_up`).
- The hash of each event from Kafka is computed again (`event_hash`). It covers the event and the hash of the previous event. If it does
  not match, the record is ignored, and the log is read over HTTP. So nothing is counted that the log does not contain.
- --verify compares the hashes of the events with the signed heads of the log. It needs the package `cryptography`.
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
SUPPORTED_VERSIONS = {"ChunkJudged": 1}  # event types that are counted, with the schema version that this program understands
PAGE_SIZE = 500
POLL_INTERVAL_SECONDS = 1.0  # without records for this time, the log is read over HTTP: a lost broker costs latency, never an event
RETRY_DELAY_SECONDS = 1.0
MAX_FETCH_BYTES = 4 * 1024 * 1024  # more than the largest record of the topic

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
    """An event. Only events from Kafka have a `previous_hash`."""

    position: int
    type: str
    schema_version: int
    data: dict[str, Any]
    hash: str
    previous_hash: str = ""


class Gap(Exception):
    """Events are missing before this event, or it does not follow the previous one."""


class VerificationError(Exception):
    """A record or a hash differs from the log."""


class Counts:
    """The counts, and the position up to which the log is counted."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("pragma journal_mode = wal")
        self.db.executescript(SCHEMA)

    @property
    def position(self) -> int:
        return int(self.db.execute("select position from place").fetchone()[0])

    def apply(self, events: list[Event]) -> None:
        """Count the events after the stored position, and advance it, in one transaction. Earlier events are skipped. Raises Gap."""
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
        """The stored hash at a position; empty if there is none, as in a database of an older version of this program."""
        if position == 0:
            return hashlib.sha256(b"bioscope").hexdigest()
        row = self.db.execute("select hash from hashes where position = ?", (position,)).fetchone()
        return row[0] if row else ""

    def _count(self, event: Event) -> None:
        if event.type not in SUPPORTED_VERSIONS:
            return
        if event.schema_version != SUPPORTED_VERSIONS[event.type]:
            sys.exit(f"position {event.position} has {event.type} in schema version {event.schema_version}: update this program")
        self.db.executemany(COUNT, [(event.data["at"][:10], result["label"]) for result in event.data["results"]])

    def table(self) -> list[tuple[str, str, int]]:
        return self.db.execute("select day, label, results from counts order by day, label").fetchall()


class Feed:
    """The log over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token

    def after(self, position: int, *, wait: float = 0.0) -> list[Event]:
        """The events after a position. If there are none, wait up to `wait` seconds for one. Raises OSError."""
        page = self._get("/api/events", timeout=wait + 10, after=position, limit=PAGE_SIZE, wait=wait, sealed="true")
        return [Event(item["position"], item["type"], item["schema_version"], item["data"], item["hash"]) for item in page["events"]]

    def heads(self, position: int) -> dict[str, Any]:
        """The signed heads after a position, and the public keys that verify them. Raises OSError."""
        return self._get("/api/events/heads", timeout=10, after=position, limit=PAGE_SIZE)

    def _get(self, path: str, *, timeout: float, **query: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}{path}?{urllib.parse.urlencode(query)}", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            if error.code in {401, 403}:
                sys.exit(f"access denied (HTTP {error.code}): BIOSCOPE_TOKEN must be a token with the scope events:read")
            raise


def catch_up(counts: Counts, feed: Feed, *, wait: float = 0.0) -> None:
    """Count all events that the log has now."""
    while events := feed.after(counts.position, wait=wait):
        counts.apply(events)
        report(counts, "http")
        wait = 0.0


def follow_http(counts: Counts, feed: Feed) -> NoReturn:
    while True:
        try:
            catch_up(counts, feed, wait=20.0)
        except OSError as error:
            print(f"retry in {RETRY_DELAY_SECONDS:.0f} s: {error}", file=sys.stderr)
            time.sleep(RETRY_DELAY_SECONDS)


async def follow_kafka(counts: Counts, feed: Feed, brokers: str) -> None:
    """Count new records from the end of the topic on. Events that are missing there are read over HTTP."""
    own_position = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "latest"}
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=brokers, max_partition_fetch_bytes=MAX_FETCH_BYTES, **own_position)
    try:
        await consumer.start()
        await consumer.seek_to_end()
        catch_up(counts, feed)
        while True:
            batches = await consumer.getmany(timeout_ms=int(POLL_INTERVAL_SECONDS * 1000))
            try:
                events = sorted(event_of(record) for records in batches.values() for record in records)
                counts.apply(events)
            except (Gap, VerificationError):
                events = []
                catch_up(counts, feed)
            if events:
                report(counts, "kafka")
            else:
                catch_up(counts, feed)
    finally:
        await consumer.stop()


def event_of(record: Any) -> Event:
    """The event in a record. Raises VerificationError if its hash does not match its content."""
    try:
        headers = {name: value.decode() for name, value in record.headers}
        if event_hash(headers, record.value) != headers["ce_hash"]:
            raise VerificationError
        content = headers["ce_type"], int(headers["ce_schemaversion"]), json.loads(record.value)
        return Event(int(headers["ce_position"]), *content, headers["ce_hash"], headers["ce_previoushash"])
    except (KeyError, ValueError, TypeError, struct.error) as error:
        raise VerificationError from error


def event_hash(headers: dict[str, str], data: bytes) -> str:
    """SHA-256 (hex) over the previous hash and every stored field, each after its length (4 bytes, big-endian)."""
    since_1970 = datetime.fromisoformat(headers["ce_time"]) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    fields = (
        struct.pack(">q", int(headers["ce_position"])),
        uuid.UUID(headers["ce_subject"]).bytes,
        struct.pack(">i", int(headers["ce_streamversion"])),
        headers["ce_type"].encode(),
        struct.pack(">i", int(headers["ce_schemaversion"])),
        data,
        headers["ce_meta"].encode(),
        uuid.UUID(headers["ce_id"]).bytes,
        struct.pack(">q", since_1970 // timedelta(microseconds=1)),
    )
    framed = b"".join(struct.pack(">i", len(field)) + field for field in fields)
    return hashlib.sha256(bytes.fromhex(headers["ce_previoushash"]) + framed).hexdigest()


def signed_by(key: Any, head: dict[str, Any]) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only --verify needs it

    try:
        key.verify(base64.b64decode(head["signature"]), head["signed_text"].encode())
    except InvalidSignature:
        return False
    return True


def verify(counts: Counts, feed: Feed) -> int:
    """Compare the stored hashes with the signed heads of the log. Returns how many agree. Raises VerificationError, OSError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    agreed, position = 0, 0
    while (page := feed.heads(position))["heads"]:
        keys = [Ed25519PublicKey.from_public_bytes(base64.b64decode(key)) for key in page["public_keys"]]
        for head in page["heads"]:
            position = head["position"]
            if not any(signed_by(key, head) for key in keys):
                raise VerificationError(f"the head at position {position} is not signed by this installation")
            own_hash = counts.hash_at(position)
            if not head["signed_text"].startswith(f"{position}:{own_hash or head['hash']}:"):
                raise VerificationError(f"the signed head at position {position} differs from the event that was counted")
            agreed += bool(own_hash)
    return agreed


async def follow(counts: Counts, feed: Feed, brokers: str) -> NoReturn:
    while True:
        try:
            await follow_kafka(counts, feed, brokers)
        except (KafkaError, OSError, Gap) as error:
            print(f"retry in {RETRY_DELAY_SECONDS:.0f} s: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(RETRY_DELAY_SECONDS)


def report(counts: Counts, source: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} at position {counts.position}, by {source}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="SQLite file of the counts; created if it does not exist")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the API [default: %(default)s]")
    parser.add_argument("--kafka", default="", metavar="HOST:PORT", help="Kafka brokers, separated by commas [default: HTTP alone]")
    parser.add_argument("--show", action="store_true", help="print the counts and exit")
    parser.add_argument("--verify", action="store_true", help="compare the counted events with the signed heads of the log and exit")
    arguments = parser.parse_args()
    counts = Counts(arguments.database)
    if arguments.show:
        print("\n".join(f"{day}  {results:8}  {label}" for day, label, results in counts.table()) or "no results yet")
        return
    token = os.environ.get("BIOSCOPE_TOKEN") or sys.exit("BIOSCOPE_TOKEN is not set: run bioscope tokens create NAME --scope events:read")
    feed = Feed(arguments.url, token)
    if arguments.verify:
        try:
            print(f"{verify(counts, feed)} signed heads agree with the counted events")
        except VerificationError as error:
            sys.exit(f"the counted events differ from the log: {error}")
        return
    try:
        asyncio.run(follow(counts, feed, arguments.kafka)) if arguments.kafka else follow_http(counts, feed)
    except KeyboardInterrupt:
        print(f"stopped at position {counts.position}", file=sys.stderr)


if __name__ == "__main__":
    main()
