"""A model package: opened, and checked as far as that is possible without running it."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from infrastructure.inference.models.onnx_validation import PACKAGE_LIMITS, ModelLimits, ModelSummary, summarize_model
from infrastructure.inference.models.refusals import ModelRefused, PackageRefused, RefusalCode, shown
from infrastructure.inference.packages.consistency import NetworkNames, check_test_input, check_test_output, match_network
from infrastructure.inference.packages.manifest_fields import convert_fields
from infrastructure.inference.packages.manifest_place import (
    ALL_MANIFEST_FILES,
    MANIFEST_FILE,
    PLAIN_MANIFEST_FILE,
    folder_of_manifest,
)
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.package_files import Archive, FileLimits, PackageFiles, open_files, open_named_files
from infrastructure.inference.packages.package_manifest import PackageFile, PackageManifest
from infrastructure.inference.packages.plain_model import LABELS_FILE, PlainManifest, as_rdf, read_labels
from infrastructure.inference.packages.strict_yaml import YamlLimits, load_yaml
from infrastructure.inference.packages.tensor_file import read_layout, read_tensor

ONNX_SUFFIX: Final = ".onnx"


class PackageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of the files and their sizes, of the manifest, and of the network."""

    files: FileLimits = FileLimits()
    yaml: YamlLimits = YamlLimits()
    network: ModelLimits = PACKAGE_LIMITS


DEFAULT_LIMITS: Final = PackageLimits()


class FileFacts(msgspec.Struct, frozen=True):
    """Of one file of a package."""

    size: int
    sha256: str


class Package:
    """Made by `open_package`. Nothing of it was run yet: that it gives its test tensors is still to be tested.

    `files` are all files by name; `document` is the manifest as JSON values; `names` are those of the network's tensors. `network` and
    `names` are None for an external classifier.
    """

    def __init__(self, files: PackageFiles, folder: str, limits: PackageLimits) -> None:
        self._files, self._folder, self._limits = files, folder, limits
        self.files: Mapping[str, FileFacts] = {name: self._facts(name) for name in self._own_names()}
        self._summaries: dict[str, ModelSummary] = {}
        self.network: ModelSummary | None = None
        self.names: NetworkNames | None = None
        self.document, self.manifest = self._described()
        self._check_files()

    def read(self, name: str) -> bytes:
        """A file as it was when the package was opened. Raises PackageRefused."""
        facts = self._known(name)
        data = b"".join(self._files.stream(self._folder + name))
        if sha256(data).hexdigest() != facts.sha256:
            raise PackageRefused(RefusalCode.FILE_CHANGED, "changed after the package was opened", file=name)
        return data

    def _own_names(self) -> list[str]:
        return [name.removeprefix(self._folder) for name in self._files.sizes if name.startswith(self._folder)]

    def _facts(self, name: str) -> FileFacts:
        digest, size = sha256(), 0
        for chunk in self._files.stream(self._folder + name):
            digest.update(chunk)
            size += len(chunk)
        return FileFacts(size, digest.hexdigest())

    def _known(self, name: str, field: str = "") -> FileFacts:
        if name in self.files:
            return self.files[name]
        if not field:
            raise PackageRefused(RefusalCode.FILE_MISSING, "is not in the package", file=name)
        detail = f"names `{shown(name)}`, which is not in the package"
        raise PackageRefused(RefusalCode.FILE_MISSING, detail, file=self._manifest_file(), field=field)

    # ---- manifest
    def _manifest_file(self) -> str:
        return next((name for name in ALL_MANIFEST_FILES if name in self.files), MANIFEST_FILE)

    def _described(self) -> tuple[Any, PackageManifest]:
        name = self._manifest_file()
        document = load_yaml(self.read(name), file=name, limits=self._limits.yaml)
        if name != PLAIN_MANIFEST_FILE:
            return document, parse_manifest(document, file=name)
        try:
            fields = self._plain_fields(document)
            return fields, parse_manifest(fields, file=name)
        except PackageRefused as refused:
            raise PackageRefused(refused.code, refused.detail, file=refused.file, field=_plain_field(refused.field)) from None

    def _plain_fields(self, document: Any) -> dict[str, Any]:
        """Of the simple form, in which the network says how its tensors are called."""
        plain = convert_fields(document, PlainManifest, PLAIN_MANIFEST_FILE)
        labels = read_labels(self.read(LABELS_FILE))
        output = document.get("output")
        if isinstance(output, dict) and output.get("kind") == "external":
            return as_rdf(document, plain, labels, "", None)
        weights = plain.weights or self._only_network()
        self._known(weights, "weights")
        return as_rdf(document, plain, labels, weights, self._validated(weights))

    def _only_network(self) -> str:
        found = [name for name in self.files if name.lower().endswith(ONNX_SUFFIX)]
        if len(found) != 1:
            raise PackageRefused(
                RefusalCode.FILE_MISSING,
                f"is missing, and the package has {len(found)} files that end with {ONNX_SUFFIX}",
                file=PLAIN_MANIFEST_FILE,
                field="weights",
            )
        return found[0]

    # ---- files
    def _check_files(self) -> None:
        for field, file in self.manifest.files:
            self._check_digest(file, field)
        if self.manifest.weights is not None:
            source = self.manifest.weights.source
            self.network = self._validated(source)
            self.names = match_network(self.manifest, self.network, file=source)
        self._check_test_tensors()

    def _check_digest(self, file: PackageFile, field: str) -> None:
        facts = self._known(file.source, f"{field}.source")
        if file.sha256 is not None and file.sha256 != facts.sha256:
            raise PackageRefused(
                RefusalCode.DIGEST_MISMATCH,
                f"is {file.sha256}, but {shown(file.source)} has {facts.sha256}",
                file=self._manifest_file(),
                field=f"{field}.sha256",
            )

    def _validated(self, name: str) -> ModelSummary:
        """Of a network, which the simple form needs before the rest of the manifest is known."""
        if name not in self._summaries:
            try:
                self._summaries[name] = summarize_model(self.read(name), self._limits.network)
            except ModelRefused as refused:
                raise PackageRefused(refused.code, str(refused), file=name) from None
        return self._summaries[name]

    def _check_test_tensors(self) -> None:
        """Each is plain finite numbers of the shape and type that the manifest gives."""
        tensor = self.manifest.input
        if tensor is not None and tensor.test_tensor is not None:
            name = tensor.test_tensor.source
            data = self.read(name)
            check_test_input(tensor, read_layout(data, name=name), file=name)
            read_tensor(data, name=name)
        for output in self.manifest.outputs:
            if output.test_tensor is not None:
                name = output.test_tensor.source
                data = self.read(name)
                check_test_output(output, read_layout(data, name=name), file=name)
                read_tensor(data, name=name)


def open_package(source: Path | Archive, limits: PackageLimits = DEFAULT_LIMITS) -> Package:
    """A folder, a zip archive or its bytes, or an ONNX file with `labels.txt` and `bioscope.yaml` beside it.

    In a folder or archive the manifest may lie in the only folder that has one. Raises PackageRefused with what is wrong, where, and
    what is expected, and FileNotFoundError.
    """
    if isinstance(source, Path) and source.suffix.lower() == ONNX_SUFFIX and source.is_file():
        beside = {name: source.parent / name for name in (PLAIN_MANIFEST_FILE, LABELS_FILE)}
        paths = {source.name: source, **{name: path for name, path in beside.items() if path.exists()}}
        files = open_named_files(paths, limits.files)
    else:
        files = open_files(source, limits.files)
    return Package(files, folder_of_manifest(files.sizes), limits)


def read_weights(archive: Archive, manifest: PackageManifest, limits: PackageLimits = DEFAULT_LIMITS) -> bytes:
    """The network of a package that was checked before, whose archive is known by its sha256. Raises PackageRefused."""
    assert manifest.weights is not None
    files = open_files(archive, limits.files)
    name = folder_of_manifest(files.sizes) + manifest.weights.source
    if name not in files.sizes:
        raise PackageRefused(RefusalCode.FILE_MISSING, "is not in the package", file=name)
    return b"".join(files.stream(name))


def _plain_field(field: str) -> str:
    """The path of a field as bioscope.yaml has it."""
    return field.removeprefix("config.bioscope.").replace("inputs[0]", "input_tensor")
