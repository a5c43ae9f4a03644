"""Bundled models and sample micrographs, and the registration of the models."""

import asyncio
import io
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import msgspec

from application.models import add_version
from application.ports import BlobStore, Command, EventStore
from domain import model
from domain.access import Actor
from domain.errors import Invalid
from domain.model import Model, Version
from domain.values import model_id, system_actor
from infrastructure.inference.children.child_process import ChildFailed, ChildLost
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.model_checker import CHECK_MODEL
from infrastructure.inference.model_reference import DEFAULT_PROVIDER
from infrastructure.inference.models.manifest import FILE, ModelManifest, load_manifest, manifest_as_json
from infrastructure.inference.models.onnx_validation import validate_model
from infrastructure.inference.models.refusals import ModelRefused
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage, check_answer, version_of
from infrastructure.inference.packages.package import open_package
from infrastructure.inference.version_digest import version_digest

ACTOR: Final = Actor(id=system_actor("shipped models"), kind="system")
CHECKOUT: Final = Path(__file__).resolve().parents[3]
INSTALLED: Final = Path(__file__).resolve().parents[2] / "shipped_files"  # only in a wheel
CHECK_MEMORY_BYTES: Final = 2 * 1024**3
CHECK_TIMEOUT_SECONDS: Final = 30.0
PACKED_AT: Final = (1980, 1, 1, 0, 0, 0)
UNIX: Final = 3
PLAIN_FILE: Final = 0o100644


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
    """Store the models of `folder` in the blob store, each as a package, and record them in the log. Idempotent.

    The first version of a model becomes `production`, a later one `candidate`. A new version is checked in a sandboxed child, as an
    uploaded package is. Raises Invalid, Unavailable.
    """
    return [_registered(path.parent, blobs, log) for path in bundled_manifests(folder or models())]


def package_archive(folder: Path) -> bytes:
    """The model in `folder` as a zip archive, with its manifest and the files that this names. The same files give the same bytes.

    Raises Invalid for a file that cannot be read.
    """
    package = open_package(folder)
    names = sorted({FILE, *(file.source for _, file in package.manifest.files)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            entry = zipfile.ZipInfo(name, PACKED_AT)
            entry.create_system, entry.external_attr = UNIX, PLAIN_FILE << 16
            packed.writestr(entry, package.read(name))
    return archive.getvalue()


class _Bundled(NamedTuple):
    """A model of this release. `same` is its version without a number."""

    folder: Path
    record: ModelManifest
    same: Version

    def known_in(self, state: Model | None) -> Version | None:
        """The version in the log that gives the same results, also if an earlier release registered it."""
        return None if state is None else state.same_as(self.same)


def _registered(folder: Path, blobs: BlobStore, events: EventStore) -> BundledModel:
    record, text = load_manifest(folder), manifest_as_json(folder)
    same = Version(
        number=1,
        sha256=record.sha256,
        size=0,
        labels=record.labels,
        review_below=record.review_below,
        record=text,
        digest=version_digest(record.sha256, msgspec.json.decode(text)),
    )
    bundled = _Bundled(folder, record, same)
    is_new = _register(bundled, blobs, events)
    state = events.load(model_id(record.name), model.evolve)
    known = bundled.known_in(state)
    assert state is not None
    assert known is not None
    return BundledModel(
        name=record.name,
        release=record.version,
        sha256=record.sha256,
        number=known.number,
        aliases=tuple(sorted(alias for alias, at in state.aliases.items() if at == known.number)),
        is_new=is_new,
    )


def _register(bundled: _Bundled, blobs: BlobStore, events: EventStore) -> bool:
    """Register a version, or store its file again; return whether it was not in the log yet."""
    known = bundled.known_in(events.load(model_id(bundled.record.name), model.evolve))
    if known is not None:
        if not blobs.exists(known.file):
            _store(blobs, package_archive(bundled.folder) if known.package else _weights(bundled))
        return False
    _weights(bundled)
    archive = package_archive(bundled.folder)
    checked = asyncio.run(_checked(bundled.folder, archive))
    _store(blobs, archive)
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    version = version_of(checked, package=sha256(archive).hexdigest())
    done = add_version(name=checked.model, description=checked.description, version=version, command=command, log=events)
    return done.position > 0


def _store(blobs: BlobStore, data: bytes) -> None:
    writer = blobs.begin(max_bytes=len(data))
    writer.write(data)
    writer.commit()


def _weights(bundled: _Bundled) -> bytes:
    path = bundled.folder / bundled.record.weights.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from None
    if sha256(data).hexdigest() != bundled.record.sha256:
        raise Invalid(f"{path} does not match the sha256 in its manifest")
    try:
        validate_model(data)
    except ModelRefused as refused:
        raise Invalid(f"{path} is refused: {refused}") from None
    return data


async def _checked(folder: Path, archive: bytes) -> CheckedPackage:
    """What a sandboxed child finds in the package. Raises Invalid if it refuses it."""
    name = sha256(archive).hexdigest()
    fork_server = ForkServer("infrastructure.inference.children.child_functions")
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=CHECK_MEMORY_BYTES, hang_seconds=CHECK_TIMEOUT_SECONDS)
    try:
        answer = await pool.run(
            CHECK_MODEL,
            name,
            DEFAULT_PROVIDER,
            into=CheckedPackage | RefusedPackage,  # type: ignore[arg-type]
            check=check_answer,
            lend={name: io.BytesIO(archive)},
        )
    except ChildFailed as error:
        raise Invalid(f"the model in {folder} is refused: {error.detail}") from None
    except ChildLost as error:
        raise Invalid(f"the model in {folder} is refused: it crashed its process ({error})") from None
    finally:
        pool.close()
        fork_server.close()
    if isinstance(answer, RefusedPackage):
        raise Invalid(f"the model in {folder} is refused: {answer.detail}")
    return answer


def _bundled(name: str, *, in_checkout: str) -> Path:
    return INSTALLED / name if INSTALLED.is_dir() else CHECKOUT / in_checkout
