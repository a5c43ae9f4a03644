"""The tests themselves: each asserts something, none waits by sleeping, and each use case has one on in-memory twins."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLEEPS = {
    "tests/adversaries/test_blob_store.py": "a file counts as settled once it is old enough, by the kernel's clock",
    "tests/chaos": "faults last for a while, and clients pause between calls",
    "tests/contracts/test_limits.py": "windows pass by the clock of Redis",
    "tests/infrastructure/eventstore/test_pruning.py": "a row passes a limit of age by the clock of Postgres",
    "tests/infrastructure/http/test_server.py": "a client reads slowly",
    "tests/infrastructure/inference/breaking_child_functions.py": "a child hangs",
    "tests/infrastructure/inference/checking_child_functions.py": "a child hangs",
    "tests/infrastructure/inference/pool_calls.py": "a child hangs, or works for a while",
    "tests/infrastructure/relay/test_publisher.py": "writers hold their transactions open",
    "tests/infrastructure/interrupted_calls.py": "a call that takes longer than the test",
    "tests/infrastructure/test_parallel.py": "calls that take different times",
    "tests/kafka/system_processes.py": "an event each 0.3 s until Kafka delivers one, and counters that are written each second",
    "tests/rigs/a_life.py": "changes of one dataset are limited, and accesses are recorded twice a second",
    "tests/kafka/test_consumer_process.py": "something does not happen meanwhile",
    "tests/overload": "clients pause between calls",
    "tests/rigs/external_classifier.py": "inference blocks the loop of a classifier",
    "tests/rigs/waiting.py": "polls a condition up to a deadline",
    "tests/system/test_consumer.py": "a process runs for a while before it is killed",
    "tests/system/test_kills.py": "processes run for a while before one is killed",
}
"""Files and folders that may call `time.sleep`, each with the reason."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


PATHS = {module_of(path): path for path in sorted((ROOT / "tests").rglob("*.py"))}
TEST_MODULES = [module for module in PATHS if module.rpartition(".")[2].startswith("test_")]


@cache
def tree_of(module):
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


@cache
def functions_of(module):
    """The functions and methods that a module of the tests defines, by name."""
    found = defaultdict(list)
    if module in PATHS:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[node.name].append(node)
    return found


@cache
def imports_of(module):
    """What a module imports by name: where from, and its name there."""
    imports = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}


def collected_from(module):
    return [one for name, found in functions_of(module).items() if name.startswith("test_") for one in found]


def called_name(call):
    """The function or method that a call names, without what stands before a dot."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def asserts_itself(function):
    """Whether a function has an assertion of its own."""
    for node in ast.walk(function):
        match node:
            case ast.Assert():
                return True
            case ast.Call() if called_name(node) in {"raises", "fail"} or called_name(node).startswith("assert_"):
                return True
    return False


def called_functions(module, function):
    """The functions of the tests that a function may call, with their modules."""
    for name in {called_name(node) for node in ast.walk(function) if isinstance(node, ast.Call)}:
        for place, there in {(module, name), imports_of(module).get(name, (module, name))}:
            yield from ((place, called) for called in functions_of(place)[there])


def asserts(module, function):
    """Whether a function asserts something, itself or in a function of the tests that it calls."""
    reached = [(module, function)]
    for place, one in reached:
        if asserts_itself(one):
            return True
        reached += [called for called in called_functions(place, one) if called not in reached]
    return False


def clock_limits(function):
    """Lines that assert that less time than a number of seconds has passed. A named limit of the product is a reason to fail; a number
    says how fast this machine was."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            for compared in (each for each in ast.walk(node.test) if isinstance(each, ast.Compare)):
                names = {called_name(each) for each in ast.walk(compared.left) if isinstance(each, ast.Call)}
                is_below = any(isinstance(operator, (ast.Lt, ast.LtE)) for operator in compared.ops)
                if is_below and names & {"monotonic", "perf_counter"} and isinstance(compared.comparators[-1], ast.Constant):
                    yield node.lineno


def test_many_tests_are_looked_at():
    assert sum(len(collected_from(module)) for module in TEST_MODULES) > 2000


@pytest.mark.parametrize("module", TEST_MODULES)
def test_every_test_asserts_something(module):
    assert [test.name for test in collected_from(module) if not asserts(module, test)] == []


def test_no_test_sleeps_without_a_reason():
    sleeps = [
        f"{module}:{node.lineno}"
        for module, path in PATHS.items()
        if not any(path.is_relative_to(ROOT / allowed) for allowed in SLEEPS)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]
    assert sleeps == []


@pytest.mark.parametrize("allowed", SLEEPS)
def test_every_reason_to_sleep_is_needed(allowed):
    place = ROOT / allowed
    files = [place] if place.is_file() else place.rglob("*.py")
    assert any("time.sleep(" in file.read_text(encoding="utf-8") for file in files)


def test_no_test_limits_the_time_that_passes_by_a_number():
    found = [f"{module}:{line}" for module in TEST_MODULES for test in collected_from(module) for line in clock_limits(test)]
    assert found == []


# ---- use cases -----------------------------------------------------------------------------------------------------------------------
PORTS = {"log", "blobs"}
"""A public function of the application layer that is given one of these is a use case."""
PARTS = {
    "administrators",
    "api_keys.load_key",
    "api_keys.states_of",
    "authentication.signing_in",
    "commands",
    "history.access_sentences",
    "history.access_trail",
    "history.audit.described",
    "history.trail_sentences",
    "invitations.load_invitation",
    "mail_links",
    "passwords",
    "service_accounts.load_service",
    "service_accounts.states_of",
    "accounts.end_sessions",
    "accounts.session_endings",
}
"""Parts of several use cases, which are tested with these."""


def use_cases():
    for path in sorted((ROOT / "application").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
                given = {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
                name = f"{module_of(path)}.{node.name}"
                if given & PORTS and not any(name.startswith(f"application.{part}") for part in PARTS):
                    yield name


def used_names(module):
    """The functions of the application layer that a module of tests names, with their modules."""
    imported = {name: f"{place}.{what}" for name, (place, what) in imports_of(module).items() if place.partition(".")[0] == "application"}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Name) and node.id in imported:
            yield imported[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            yield f"{imported[node.value.id]}.{node.attr}"


def test_every_use_case_has_a_test_on_in_memory_twins():
    used = {name for module in TEST_MODULES if module.startswith("tests.application.") for name in used_names(module)}
    assert len(used) > 50
    assert sorted(set(use_cases()) - used) == []


# ---- the checks see what they look for -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("assert answer", True),
        ("with pytest.raises(ValueError):\n        act()", True),
        ("np.testing.assert_array_equal(one, other)", True),
        ("print(answer)", False),
        ("act()", False),
    ],
)
def test_an_assertion_is_recognised(body, wanted):
    (function,) = ast.parse(f"def test_it():\n    {body}").body
    assert asserts_itself(function) is wanted


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("assert time.monotonic() - began < 2", [2]),
        ("assert 0.1 <= time.perf_counter() - began < 2", []),
        ("assert time.monotonic() - began < LIMIT", []),
        ("assert time.monotonic() - began > 2", []),
    ],
)
def test_a_limit_of_time_is_recognised(body, lines):
    (function,) = ast.parse(f"def test_it():\n    {body}").body
    assert list(clock_limits(function)) == lines
