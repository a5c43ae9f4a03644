"""The check of a model package in a child: opened, loaded, and run on its test tensors."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from application.models import check_version
from application.result_rules import DECIMALS
from domain.errors import DomainError
from domain.model import NONE_APPLIES, OutputKind
from domain.values import printable
from infrastructure.inference.children.memory_use import allocated_bytes
from infrastructure.inference.children.networks import RUNTIME, Network, NetworkFailed, NetworkOutOfMemory
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode
from infrastructure.inference.package_answers import MAX_RECORD_LENGTH, CheckedPackage, RefusedPackage, version_of
from infrastructure.inference.packages.input_fitting import InputMismatch, noise_image, preprocessed
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.notes import notes_on
from infrastructure.inference.packages.operators import NamedArray, OperatorFailed
from infrastructure.inference.packages.package import Package, open_package
from infrastructure.inference.packages.package_files import Archive
from infrastructure.inference.packages.package_manifest import OutputTensor, PackageFile, PackageManifest, Tolerance
from infrastructure.inference.packages.tensor_file import read_tensor
from infrastructure.inference.scoring import NotOfItsKind, interpret, result_labels
from infrastructure.inference.version_digest import version_digest

T = TypeVar("T")

MAX_DETAIL_LENGTH: Final = 900
MAX_DESCRIPTION_LENGTH: Final = 4000
MAX_RELEASE_LENGTH: Final = 100
OF_RUNS: Final = frozenset({RefusalCode.MODEL_REFUSED, RefusalCode.TOO_MUCH_MEMORY})
"""Codes of networks that were loaded, so that another machine may answer otherwise."""
TOO_MUCH_MEMORY: Final = "it needs more memory than a worker may take"


def check_package(archive: Archive, *, provider: str) -> CheckedPackage | RefusedPackage:
    """Open the package in `archive`, and run it. Without test tensors it is run on noise, and its `largest_difference` is None.

    Raises ProviderMissing.
    """
    try:
        return _Check(open_package(archive), provider).answer(package_size=len(archive))
    except PackageRefused as refused:
        return _refusal(refused, provider)
    except MemoryError:
        return _refusal(PackageRefused(RefusalCode.TOO_MUCH_MEMORY, TOO_MUCH_MEMORY), provider)


class _Difference(NamedTuple):
    """Of a number of a test output from the expected one."""

    difference: float
    allowed: float

    @property
    def share(self) -> float:
        """Of what is allowed."""
        return self.difference / self.allowed if self.allowed else 0.0 if self.difference == 0 else float("inf")


class _Check:
    """One package, which was opened."""

    def __init__(self, package: Package, provider: str) -> None:
        self._package, self._provider = package, provider
        self._manifest = package.manifest

    def answer(self, *, package_size: int) -> CheckedPackage:
        """Raises PackageRefused, MemoryError."""
        package, manifest = self._package, self._manifest
        _require_runnable(manifest)
        record = _record(package.document, manifest)
        assert manifest.weights is not None
        assert package.network is not None
        source = manifest.weights.source
        weights, content = package.files[source], package.read(source)
        before = allocated_bytes()
        with _refusing(source):
            network, load_seconds = _timed(lambda: self._loaded(content))
            worst = self._largest_difference(network)
            run_seconds = self._run_seconds(network)
        checked = CheckedPackage(
            model=manifest.model,
            description=_description(manifest),
            release=_release(manifest),
            record=record,
            sha256=weights.sha256,
            size=weights.size,
            digest=version_digest(weights.sha256, package.document),
            kind=manifest.kind,
            labels=result_labels(manifest),
            label_texts={label: printable(words) for label, words in manifest.label_texts.items()},
            review_below=manifest.review_below,
            largest_difference=None if worst is None else worst.difference,
            tolerance=None if worst is None else worst.allowed,
            load_seconds=load_seconds,
            run_seconds=run_seconds,
            memory_bytes=max(allocated_bytes() - before, 0),
            nodes=package.network.nodes,
            opset=package.network.opset,
            files=len(package.files),
            package_size=package_size,
            runtime=RUNTIME,
            provider=self._provider,
            notes=notes_on(manifest),
        )
        _require_usable(checked)
        return checked

    def _loaded(self, weights: bytes) -> Network:
        assert self._package.names is not None
        return Network(weights, self._manifest, self._package.names, provider=self._provider)

    # ---- test tensors
    def _largest_difference(self, network: Network) -> _Difference | None:
        """Of all test outputs, relative to what is allowed; None if the package has no test input or no test output."""
        images = self._test_images()
        expected = {output.id: self._test_outputs(output, count=len(images)) for output in self._manifest.outputs if output.test_tensor}
        worst = None
        for index, image in enumerate(images):
            found = _outputs(network, image, expected.keys())
            interpret(found, self._manifest, picture={})
            for output_id, rows in expected.items():
                worst = _larger(worst, _difference(found[output_id], rows[index].values, self._manifest.tolerances[output_id]))
        if worst is not None and worst.share > 1:
            raise NetworkFailed(
                f"its test output differs by {worst.difference:.3g} from the expected one; the tolerance is {worst.allowed:.3g}"
            )
        return worst

    def _test_images(self) -> list[NamedArray]:
        tensor = self._manifest.input
        assert tensor is not None
        if tensor.test_tensor is None:
            return []
        return _images(NamedArray(self._numbers(tensor.test_tensor), tensor.axis_ids))

    def _test_outputs(self, output: OutputTensor, *, count: int) -> list[NamedArray]:
        assert output.test_tensor is not None
        rows = _images(NamedArray(self._numbers(output.test_tensor), tuple(axis.id for axis in output.axes)))
        if count and len(rows) != count:
            detail = f"has {len(rows)} images; the test input has {count}"
            raise PackageRefused(RefusalCode.TENSOR_MISMATCH, detail, file=output.test_tensor.source)
        return rows

    def _numbers(self, file: PackageFile) -> NDArray[Any]:
        return read_tensor(self._package.read(file.source), name=file.source)

    # ---- speed
    def _run_seconds(self, network: Network) -> float:
        """Of one image, after one that was not measured."""
        image = next(iter(self._test_images()), None)
        if image is None:
            assert self._manifest.input is not None
            image = noise_image(self._manifest.input)
            found = _outputs(network, image, ())
            if self._manifest.kind is not OutputKind.REGRESSION:  # whose range holds for real images
                interpret(found, self._manifest, picture={})
        return _timed(lambda: _outputs(network, image, ()))[1]


# ---- what the network gives --------------------------------------------------------------------------------------------------------
def _images(tensor: NamedArray) -> list[NamedArray]:
    """Each image of a batch, as a batch of one."""
    if "batch" not in tensor.axes:
        return [tensor]
    dimension = tensor.axes.index("batch")
    count = tensor.values.shape[dimension]
    return [NamedArray(np.take(tensor.values, [index], axis=dimension), tensor.axes) for index in range(count)]


def _outputs(network: Network, image: NamedArray, ids: Collection[str]) -> dict[str, NDArray[Any]]:
    """The outputs that results are read from, and `ids`. Raises NetworkFailed, OperatorFailed."""
    manifest = network.manifest
    assert manifest.input is not None
    return network.run(preprocessed(image, manifest.input), [*manifest.result_outputs, *ids], fitted=image)


def _difference(found: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance) -> _Difference:
    """The largest one, without those of which the tolerance permits some. Raises NetworkFailed."""
    if found.shape != expected.shape:
        raise NetworkFailed(f"its test output has the shape {found.shape} instead of {expected.shape}")
    wanted = expected.astype(np.float64).reshape(-1)
    differences = np.abs(found.astype(np.float64).reshape(-1) - wanted)
    if not np.isfinite(differences).all():
        raise NetworkFailed("its test output holds numbers that are not finite")
    allowed = tolerance.absolute + tolerance.relative * np.abs(wanted)
    pairs = sorted((_Difference(*pair) for pair in zip(differences.tolist(), allowed.tolist(), strict=True)), key=lambda one: one.share)
    permitted = len(pairs) * tolerance.mismatches_per_million // 1_000_000
    return pairs[len(pairs) - permitted - 1]


def _larger(one: _Difference | None, other: _Difference) -> _Difference:
    return other if one is None or other.share > one.share else one


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = call()
    return result, round(time.perf_counter() - started, DECIMALS)


# ---- what the manifest says --------------------------------------------------------------------------------------------------------
def _require_runnable(manifest: PackageManifest) -> None:
    if manifest.kind is OutputKind.EXTERNAL:
        detail = "is external: such a classifier has no package; declare it with `bioscope models add-external`"
        raise PackageRefused(RefusalCode.OUTPUT_KIND, detail, field="config.bioscope.output.kind")
    if manifest.kind is OutputKind.MULTI_LABEL and NONE_APPLIES in manifest.labels:
        detail = f"has the label `{NONE_APPLIES}`, which an image gets to which no label applies: name it otherwise"
        raise PackageRefused(RefusalCode.LABELS, detail)


def _record(document: Any, manifest: PackageManifest) -> str:
    """The manifest as JSON text, from which it is read for each run."""
    try:
        record = msgspec.json.encode(document, order="deterministic").decode()
    except (UnicodeEncodeError, TypeError) as error:
        raise PackageRefused(
            RefusalCode.MANIFEST_FIELD, f"the manifest has a value that JSON cannot hold: {printable(str(error))}"
        ) from None
    if len(record) > MAX_RECORD_LENGTH:
        raise PackageRefused(RefusalCode.YAML_TOO_LARGE, f"the manifest has more than {MAX_RECORD_LENGTH:,} characters as JSON")
    if parse_record(record) != manifest:
        raise PackageRefused(RefusalCode.MANIFEST_FIELD, "the manifest has a value that JSON cannot hold")
    return record


def _release(manifest: PackageManifest) -> str:
    release = manifest.version
    if len(release) > MAX_RELEASE_LENGTH or release != printable(release):
        detail = f"must have at most {MAX_RELEASE_LENGTH} characters, without control characters"
        raise PackageRefused(RefusalCode.MANIFEST_FIELD, detail, field="version")
    return release


def _description(manifest: PackageManifest) -> str:
    """Without control characters, which a database does not store."""
    text = manifest.description or manifest.title
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")[:MAX_DESCRIPTION_LENGTH]


def _require_usable(checked: CheckedPackage) -> None:
    """Of as many results as one event can hold."""
    try:
        check_version(version_of(checked, package=checked.sha256))
    except DomainError as error:
        raise PackageRefused(RefusalCode.LABELS, error.detail) from None


# ---- refusals ----------------------------------------------------------------------------------------------------------------------
@contextmanager
def _refusing(file: str) -> Iterator[None]:
    """A failure of the network refuses `file`."""
    try:
        yield
    except NetworkOutOfMemory as error:
        raise PackageRefused(RefusalCode.TOO_MUCH_MEMORY, str(error), file=file) from None
    except (NetworkFailed, NotOfItsKind, OperatorFailed) as error:
        raise PackageRefused(RefusalCode.MODEL_REFUSED, str(error), file=file) from None
    except InputMismatch as mismatch:
        raise PackageRefused(RefusalCode.AXES_UNSUPPORTED, str(mismatch), field="inputs[0].axes") from None


def _refusal(refused: PackageRefused, provider: str) -> RefusedPackage:
    """It names the runtime if that had a part in it."""
    detail = printable(refused.detail)[:MAX_DETAIL_LENGTH]
    answer = RefusedPackage(code=refused.code.value, detail=detail, file=refused.file, field=refused.field)
    return msgspec.structs.replace(answer, runtime=RUNTIME, provider=provider) if refused.code in OF_RUNS else answer
