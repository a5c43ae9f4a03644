"""The rdf.yaml of a version for bioimage.io, whose specification (format 0.5) asks for more than the manifest of a version has.

What a version does not state is left out, as far as the specification permits.
"""

import re
from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import Any, Final
from unicodedata import normalize

import msgspec

from domain.model import Version
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode

LOWEST_OPSET: Final = 7
MIN_NAME, MAX_NAME, MAX_DESCRIPTION, MAX_ID = 5, 128, 1024, 32
NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_+\- ()]+")
RELEASE: Final = re.compile(r"\d+(\.\d+){0,3}")
NO_IDENTIFIER: Final = re.compile(r"^(?=\d)|[^a-z0-9_]")
NOT_PRINTABLE: Final = re.compile("[^\x0a\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
LICENCES: Final = frozenset({
    "0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause",
    "BSD-3-Clause-Clear", "BSL-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0",
    "CC-BY-SA-4.0", "CC0-1.0", "ECL-2.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only",
    "GPL-3.0-or-later", "ISC", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MIT-0",
    "MPL-2.0", "ODbL-1.0", "PDDL-1.0", "Unlicense", "Zlib",
})  # fmt: skip
"""Some of the identifiers of SPDX, which the specification takes as licences. Another licence is stated in the description."""


def zoo_manifest(version: Version) -> bytes:
    """Of a version whose package is in the simple form. Raises PackageRefused if its record cannot be read."""
    from infrastructure.inference.packages.manifest_reader import parse_record  # noqa: PLC0415 - NumPy and Pillow need 17 MB

    manifest = parse_record(version.record)
    if manifest.input is None or manifest.weights is None:
        raise PackageRefused(RefusalCode.OUTPUT_KIND, "is external, which bioimage.io does not have", field="config.bioscope.output.kind")
    document = msgspec.json.decode(version.record)
    own_ids = [manifest.input.id, *(output.id for output in manifest.outputs)]
    ids = _identifiers(own_ids)
    described = [_tensor(one, own, ids) for one, own in zip((*document["inputs"], *document["outputs"]), own_ids, strict=True)]
    weights = {"source": manifest.weights.source, "sha256": version.sha256}
    return _yaml(
        {
            "type": "model",
            "format_version": manifest.format_version,
            "name": _name(manifest.title, manifest.model),
            **_described(manifest.description, manifest.version, manifest.licence),
            "inputs": described[:1],
            "outputs": described[1:],
            "weights": {"onnx": weights | {"opset_version": manifest.weights.opset_version or LOWEST_OPSET}},
            "config": {"bioscope": _config(document.get("config", {}).get("bioscope", {}), ids)},
        }
    )


def without_test_tensors(record: str) -> bytes:
    """The manifest of a version whose test tensors are not stored. What is no manifest is returned as it is."""
    try:
        document = msgspec.json.decode(record)
    except (msgspec.DecodeError, RecursionError):
        return record.encode()
    tensors = [document.get(side) for side in ("inputs", "outputs")] if isinstance(document, dict) else []
    for tensor in (tensor for side in tensors if isinstance(side, list) for tensor in side if isinstance(tensor, dict)):
        tensor.pop("test_tensor", None)
    return _yaml(document)


def _yaml(document: Any) -> bytes:
    """JSON is YAML too, where all characters are printable."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    return NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _name(title: str, model: str) -> str:
    """The title as far as the specification permits its characters, or else one made of the name of the model."""
    ascii_only = normalize("NFKD", title).encode("ascii", "ignore").decode()
    name = " ".join(NO_NAME.sub(" ", ascii_only).split())[:MAX_NAME]
    return name if len(name) >= MIN_NAME else f"Model {model}"


def _described(description: str, version: str, licence: str) -> dict[str, str]:
    """An empty one is left out."""
    if licence and licence not in LICENCES:
        description = f"Licence: {licence}. {description}"
    found = {
        "description": description[:MAX_DESCRIPTION].strip(),
        "version": version if RELEASE.fullmatch(version) else "",
        "license": licence if licence in LICENCES else "",
    }
    return {field: text for field, text in found.items() if text}


def _identifiers(ids: Iterable[str]) -> dict[str, str]:
    """A different identifier of Python for each id."""
    found: dict[str, str] = {}
    for tensor_id in ids:
        name = NO_IDENTIFIER.sub("_", tensor_id.lower())[:MAX_ID] or "tensor"
        taken = set(found.values())
        candidates = (name, *(f"{name[: MAX_ID - 3]}_{number}" for number in range(2, 100)))
        found[tensor_id] = next(one for one in candidates if one not in taken and not iskeyword(one))
    return found


def _tensor(tensor: Mapping[str, Any], tensor_id: str, ids: Mapping[str, str]) -> dict[str, Any]:
    """As the record has it, with its identifier instead of `tensor_id`."""
    changes: dict[str, Any] = {"id": ids[tensor_id]}
    if isinstance(data := tensor.get("data"), dict) and data.get("type") == "bool":
        changes["data"] = {"type": "bool", "values": [False, True]}
    if steps := tensor.get("preprocessing"):
        changes["preprocessing"] = [_operator(step, ids) for step in steps]
    return {**tensor, **changes}


def _operator(step: Mapping[str, Any], ids: Mapping[str, str]) -> Mapping[str, Any]:
    kwargs = step.get("kwargs")
    if not isinstance(kwargs, dict) or not isinstance(reference := kwargs.get("reference_tensor"), str):
        return step
    return {**step, "kwargs": {**kwargs, "reference_tensor": ids[reference]}}


def _config(config: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    output = config.get("output")
    if not isinstance(output, dict):
        return dict(config)
    renamed = {field: ids[output[field]] for field in ("tensor", "distance") if isinstance(output.get(field), str)}
    return {**config, "output": {**output, **renamed}}
