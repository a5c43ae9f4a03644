"""The workflow, the script and the hooks run the targets of the Makefile, and the same ones."""

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PREREQUISITES = {
    target: set(needed.partition("##")[0].split()) for target, needed in re.findall(r"^([a-z0-9-]+):(?!=)(.*)$", MAKEFILE, re.MULTILINE)
}
WITH_COVERAGE = {"test": "coverage"}
"""What the workflow makes instead of a target of the script."""


def made(commands):
    """The targets that commands make; any other command fails the test."""
    words = [shlex.split(command) for command in commands]
    assert {one[0] for one in words} == {"make"}
    return [target for one in words for target in one[1:]]


def steps_of_the_workflow():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def commands_of_the_script():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]


def hooks():
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return [hook["entry"] for hook in local["hooks"]]


def test_the_workflow_makes_the_targets_of_the_script():
    script = {WITH_COVERAGE.get(target, target) for target in made(commands_of_the_script())}
    workflow = set(made(steps_of_the_workflow()))
    assert len(script) > 4
    assert script <= workflow
    assert workflow - script <= {needed for target in script for needed in PREREQUISITES[target]}


def test_tests_with_coverage_are_the_same_tests():
    recipes = {target: re.search(rf"^{target}: gates.*\n\t(.*)$", MAKEFILE, re.MULTILINE)[1] for target in ("test", "coverage")}
    assert recipes["coverage"].startswith(recipes["test"])


def test_the_hooks_are_the_gates():
    assert set(made(hooks())) == PREREQUISITES["gates"]


def test_every_target_that_is_named_exists():
    named = {*made(hooks()), *made(steps_of_the_workflow()), *made(commands_of_the_script())}
    assert named <= set(PREREQUISITES)
