"""Structs are decoded by decoders that are made at import.

msgspec 0.22 builds the tables of a type at its first use. Two threads that do so at once can read tables that are not complete, and the
process ends with a segmentation fault. While a module is imported, no other thread uses its types.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("domain", "application", "infrastructure", "projections", "api")
ONE_THREAD = {
    "infrastructure/embedded/installation.py": "RunningState",
    "infrastructure/observability/crash_counts.py": "Crashes",
    "infrastructure/operations/backup_files.py": "Manifest",
    "infrastructure/postgres/system/work_queue.py": "list[into]",
    "infrastructure/sandbox/detection.py": "Layers",
    "infrastructure/security/process_keys.py": "KeyFile",
    "infrastructure/inference/children/fork_server.py": "sandbox.Layers",
}
"""Read at the start of a process, or by one thread alone."""
BUILT_IN = {"dict", "list", "str"}


def decoded_types(source):
    """The types that are given to calls of `msgspec.json.decode`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.json.decode":
            yield from (ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "type")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_struct_is_decoded_by_a_decoder_that_is_made_at_its_first_use(package):
    found = {
        f"{path.relative_to(ROOT)}: {kind}"
        for path in (ROOT / package).rglob("*.py")
        if "cli" not in path.parts
        for kind in decoded_types(path.read_text())
        if kind.partition("[")[0] not in BUILT_IN and ONE_THREAD.get(str(path.relative_to(ROOT))) != kind
    }
    assert not found, "make a msgspec.json.Decoder beside the struct"


def test_a_call_is_found():
    assert list(decoded_types("msgspec.json.decode(text, type=_Manifest)")) == ["_Manifest"]
