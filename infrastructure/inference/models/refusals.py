"""Why a model package is refused: a stable code, the place, and a sentence. docs/models/format.md explains each code."""

from enum import StrEnum

from domain.values import printable

MAX_SHOWN_CHARACTERS = 120


class RefusalCode(StrEnum):
    """Stable: clients and reports refer to it."""

    ARCHIVE_MALFORMED = "archive_malformed"
    ARCHIVE_ENCRYPTED = "archive_encrypted"
    ARCHIVE_COMPRESSION = "archive_compression"
    ENTRY_NAME = "entry_name"
    ENTRY_DUPLICATE = "entry_duplicate"
    ENTRY_KIND = "entry_kind"
    ENTRY_OVERLAP = "entry_overlap"
    ENTRY_CORRUPTED = "entry_corrupted"
    TOO_MANY_ENTRIES = "too_many_entries"
    TOO_LARGE = "too_large"
    FILE_MISSING = "file_missing"
    FILE_CHANGED = "file_changed"
    DIGEST_MISMATCH = "digest_mismatch"

    MANIFEST_MISSING = "manifest_missing"
    YAML_ENCODING = "yaml_encoding"
    YAML_TOO_LARGE = "yaml_too_large"
    YAML_TOO_DEEP = "yaml_too_deep"
    YAML_SYNTAX = "yaml_syntax"
    YAML_TAG = "yaml_tag"
    YAML_ANCHOR = "yaml_anchor"
    YAML_DUPLICATE_KEY = "yaml_duplicate_key"

    MANIFEST_FIELD = "manifest_field"
    MANIFEST_VERSION = "manifest_version"
    MANIFEST_TYPE = "manifest_type"
    INPUTS_UNSUPPORTED = "inputs_unsupported"
    AXES_UNSUPPORTED = "axes_unsupported"
    OPERATOR_UNSUPPORTED = "operator_unsupported"
    WEIGHTS_UNSUPPORTED = "weights_unsupported"
    SOURCE_UNSUPPORTED = "source_unsupported"
    OUTPUT_KIND = "output_kind"
    LABELS = "labels"

    TENSOR_FILE = "tensor_file"
    TENSOR_MISMATCH = "tensor_mismatch"

    MODEL_REFUSED = "model_refused"
    ONNX_MALFORMED = "onnx_malformed"
    ONNX_TOO_LARGE = "onnx_too_large"
    ONNX_TOO_COMPLEX = "onnx_too_complex"
    ONNX_EXTERNAL_DATA = "onnx_external_data"
    ONNX_FUNCTIONS = "onnx_functions"
    ONNX_OPERATOR = "onnx_operator"
    ONNX_TRAINING = "onnx_training"
    ONNX_TENSOR = "onnx_tensor"
    ONNX_NOT_A_NUMBER = "onnx_not_a_number"
    ONNX_SIGNATURE = "onnx_signature"

    CHECK_CRASHED = "check_crashed"
    CHECK_TIMEOUT = "check_timeout"
    TOO_MUCH_MEMORY = "too_much_memory"
    WORKER_LOST = "worker_lost"
    PACKAGE_MISSING = "package_missing"
    PACKAGE_CORRUPTED = "package_corrupted"
    MODEL_RETIRED = "model_retired"
    MODEL_FULL = "model_full"
    UPLOADER_NOT_PERMITTED = "uploader_not_permitted"


class ModelRefused(Exception):
    """The model must not be run, or does not match its manifest. The message is a sentence about "it"."""

    def __init__(self, detail: str, code: RefusalCode = RefusalCode.MODEL_REFUSED) -> None:
        super().__init__(detail)
        self.code = code


class PackageRefused(Exception):
    """A package that cannot be used. `file` is its name in the package, `field` a path such as `inputs[0].axes[2].size`."""

    def __init__(self, code: RefusalCode, detail: str, *, file: str = "", field: str = "") -> None:
        self.code, self.detail, self.file, self.field = code, detail, shown(file), shown(field)
        super().__init__(": ".join(part for part in (self.file, self.field, detail) if part))


def shown(text: str) -> str:
    """`text` of a package as a message may contain it: printable, and not too long."""
    plain = printable(text)
    return plain if len(plain) <= MAX_SHOWN_CHARACTERS else f"{plain[:MAX_SHOWN_CHARACTERS]}..."
