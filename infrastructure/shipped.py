"""What comes with the product: models, and micrographs to try them on."""

import asyncio
import sysconfig
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from application.models import add_version
from application.ports import Blobs, Command, Log
from domain import model
from domain.access import Actor
from domain.errors import Invalid
from domain.values import model_id, system_actor
from infrastructure.model_record import FILE, ModelRecord, load_record, record_as_json
from infrastructure.pool import ChildFailed, ChildLost, Nursery, Pool

log = structlog.get_logger()

ACTOR: Final = Actor(id=system_actor("shipped models"), kind="system")
ROOT: Final = Path(__file__).resolve().parents[1]
REHEARSAL_MEMORY: Final = 2 * 1024**3
REHEARSAL_SECONDS: Final = 30.0


def models() -> Path:
    """The folder of the shipped models."""
    return _shipped("models", in_checkout="models")


def micrographs() -> Path:
    """The folder of the demonstration's pictures, with their manifest.csv."""
    return _shipped("micrographs", in_checkout="examples/micrographs")


def register_shipped(blobs: Blobs, log: Log, *, folder: Path | None = None) -> list[str]:
    """Put the models of `folder` into the blob store and the log; the names of those that were not there yet. Harmless to repeat.

    A new version's digests are checked, and its test tensor is run in a limited child. Raises Invalid, Unavailable.
    """
    return [name for path in sorted((folder or models()).glob(f"*/{FILE}")) if (name := _register(path.parent, blobs, log))]


def _register(folder: Path, blobs: Blobs, events: Log) -> str | None:
    record, text = load_record(folder), record_as_json(folder)
    known = events.load(model_id(record.name), model.evolve)
    is_known = known is not None and any((one.sha256, one.record) == (record.sha256, text) for one in known.versions)
    if is_known and blobs.exists(record.sha256):
        return None
    weights = _weights(folder, record)
    if not is_known:
        asyncio.run(_rehearse(folder, record, text, weights))
    writer = blobs.begin()
    writer.write(weights)
    writer.commit()
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    done = add_version(
        name=record.name,
        description=record.description,
        sha256=record.sha256,
        size=len(weights),
        labels=record.labels,
        review_below=record.review_below,
        record=text,
        command=command,
        log=events,
    )
    log.info("model registered", model=record.name, sha256=record.sha256, position=done.position)
    return record.name if done.position else None


def _weights(folder: Path, record: ModelRecord) -> bytes:
    try:
        data = (folder / record.weights.file).read_bytes()
    except OSError as error:
        raise Invalid(f"{folder / record.weights.file} cannot be read: {error.strerror}") from None
    if sha256(data).hexdigest() != record.sha256:
        raise Invalid(f"{folder / record.weights.file} is not the file that its record names: their sha256 differ")
    return data


async def _rehearse(folder: Path, record: ModelRecord, text: str, weights: bytes) -> None:
    async def lent() -> bytes:
        return weights

    nursery = Nursery("infrastructure.looking")
    pool = Pool(nursery, size=1, nice=0, memory_bytes=REHEARSAL_MEMORY, hang_seconds=REHEARSAL_SECONDS)
    tensors = ((folder / one.file).read_bytes() for one in (record.test_input, record.test_output))
    try:
        await pool.run("infrastructure.looking:rehearse", record.sha256, text, *tensors, into=float, lend={record.sha256: lent})
    except ChildFailed as error:
        raise Invalid(f"the model in {folder} is refused: {error.detail}") from None
    except ChildLost as error:
        raise Invalid(f"the model in {folder} is refused: it broke its process ({error})") from None
    finally:
        pool.close()
        nursery.close()


def _shipped(name: str, *, in_checkout: str) -> Path:
    """A wheel puts it where the environment keeps data; in a checkout it stands at the root."""
    if (ROOT / "pyproject.toml").is_file():
        return ROOT / in_checkout
    return Path(sysconfig.get_path("data")) / "share" / "bioscope" / name
