"""Bundled models and sample micrographs, and the registration of the models."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from application.models import add_version
from application.ports import BlobStore, Command, EventStore
from domain import model
from domain.access import Actor
from domain.errors import Invalid
from domain.model import Version
from domain.values import model_id, system_actor
from infrastructure.inference.children.child_process import ChildFailed, ChildLost
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.models.manifest import FILE, ModelManifest, load_manifest, manifest_as_json
from infrastructure.inference.models.onnx_validation import ModelRefused, validate_model

ACTOR: Final = Actor(id=system_actor("shipped models"), kind="system")
CHECKOUT: Final = Path(__file__).resolve().parents[3]
INSTALLED: Final = Path(__file__).resolve().parents[2] / "shipped_files"  # only in a wheel
SELF_TEST_MEMORY_BYTES: Final = 2 * 1024**3
SELF_TEST_TIMEOUT_SECONDS: Final = 30.0


def models() -> Path:
    """The folder of the bundled models."""
    return _bundled("models", in_checkout="models")


def micrographs() -> Path:
    """The folder of the sample images for the demo, with their manifest.csv."""
    return _bundled("micrographs", in_checkout="examples/micrographs")


class BundledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version of a bundled model: its `number` in this installation, and its aliases."""

    name: str
    release: str
    sha256: str
    number: int
    aliases: tuple[str, ...]
    is_new: bool


def bundled_manifests(folder: Path) -> list[Path]:
    """The manifests of all models in `folder`. Raises Invalid if there is none."""
    records = sorted(folder.glob(f"*/{FILE}"))
    if not records:
        raise Invalid(f"{folder} contains no model, and classification needs one: install bioscope again from its wheel")
    return records


def register_bundled(blobs: BlobStore, log: EventStore, *, folder: Path | None = None) -> list[BundledModel]:
    """Store the models of `folder` in the blob store and record them in the log. Idempotent.

    The first version of a model becomes `production`, a later one `candidate`. The digests and the file of a new version are checked, and
    its self-test runs in a sandboxed child. Raises Invalid, Unavailable.
    """
    return [_registered(path.parent, blobs, log) for path in bundled_manifests(folder or models())]


def _registered(folder: Path, blobs: BlobStore, events: EventStore) -> BundledModel:
    record, text = load_manifest(folder), manifest_as_json(folder)
    is_new = _register(folder, record, text, blobs, events)
    state = events.load(model_id(record.name), model.evolve)
    assert state is not None
    number = next(one.number for one in state.versions if (one.sha256, one.record) == (record.sha256, text))
    return BundledModel(
        name=record.name,
        release=record.version,
        sha256=record.sha256,
        number=number,
        aliases=tuple(sorted(alias for alias, at in state.aliases.items() if at == number)),
        is_new=is_new,
    )


def _register(folder: Path, record: ModelManifest, text: str, blobs: BlobStore, events: EventStore) -> bool:
    """Register a version; return whether it was not in the log yet."""
    known = events.load(model_id(record.name), model.evolve)
    is_known = known is not None and any((one.sha256, one.record) == (record.sha256, text) for one in known.versions)
    if is_known and blobs.exists(record.sha256):
        return False
    weights = _weights(folder, record)
    if not is_known:
        asyncio.run(_self_test(folder, record, text, weights))
    writer = blobs.begin()
    writer.write(weights)
    writer.commit()
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    done = add_version(
        name=record.name,
        description=record.description,
        version=Version(
            number=1, sha256=record.sha256, size=len(weights), labels=record.labels, review_below=record.review_below, record=text
        ),
        command=command,
        log=events,
    )
    return done.position > 0


def _weights(folder: Path, record: ModelManifest) -> bytes:
    try:
        data = (folder / record.weights.file).read_bytes()
    except OSError as error:
        raise Invalid(f"{folder / record.weights.file} cannot be read: {error.strerror}") from None
    if sha256(data).hexdigest() != record.sha256:
        raise Invalid(f"{folder / record.weights.file} does not match the sha256 in its manifest")
    try:
        validate_model(data)
    except ModelRefused as refused:
        raise Invalid(f"{folder / record.weights.file} is refused: {refused}") from None
    return data


async def _self_test(folder: Path, record: ModelManifest, text: str, weights: bytes) -> None:
    async def lent() -> bytes:
        return weights

    fork_server = ForkServer("infrastructure.inference.children.child_functions")
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=SELF_TEST_MEMORY_BYTES, hang_seconds=SELF_TEST_TIMEOUT_SECONDS)
    tensors = ((folder / one.file).read_bytes() for one in (record.test_input, record.test_output))
    try:
        await pool.run(
            "infrastructure.inference.children.child_functions:self_test",
            record.sha256,
            text,
            *tensors,
            into=float,
            lend={record.sha256: lent},
        )
    except ChildFailed as error:
        raise Invalid(f"the model in {folder} is refused: {error.detail}") from None
    except ChildLost as error:
        raise Invalid(f"the model in {folder} is refused: it crashed its process ({error})") from None
    finally:
        pool.close()
        fork_server.close()


def _bundled(name: str, *, in_checkout: str) -> Path:
    return INSTALLED / name if INSTALLED.is_dir() else CHECKOUT / in_checkout
