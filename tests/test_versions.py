"""What the files that install and test the project say of each other."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for lines in lists for line in lines if not line.startswith("diffcut_bench[")]


def pins(name: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(package): Version(pin) for package, pin in (line.split("==") for line in lines)}


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared():
    declared = {
        (canonicalize_name(requirement.name), Version(clause.version))
        for requirement in requirements()
        for clause in requirement.specifier
        if clause.operator == ">="
    }
    assert declared == set(pins("constraints-lowest.txt").items())
    assert {name for name, _ in declared} == {canonicalize_name(requirement.name) for requirement in requirements()}


def test_what_is_pinned_is_allowed():
    pinned = pins("constraints.txt")
    for requirement in requirements():
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is None or pin in requirement.specifier, requirement


def test_jobs_call_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    called |= set(re.findall(r"make ([\w-]+)", (ROOT / ".devcontainer" / "devcontainer.json").read_text()))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            called |= {row["target"] for row in job.get("strategy", {}).get("matrix", {}).get("include", [])}
            called |= {name for step in job["steps"] for name in re.findall(r"make ([\w-]+)", step.get("run", ""))}
    assert {"test", "lint", "types", "lowest", "newest", "docs", "package", "setup"} <= called
    assert called <= targets
