"""What is installed: pyproject.toml, and the constraints that README's commands give to pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEPENDENCIES = {"base": PROJECT["project"]["dependencies"]} | EXTRAS
del DEPENDENCIES["gpu"]  # its package takes the place of one of the base


def constraints() -> dict[str, str]:
    """Name -> version, names in lower case with dashes."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    rows = [Requirement(line) for line in lines if not line.startswith("#")]
    return {_plain(row.name): str(row.specifier).removeprefix("==") for row in rows}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_hold_versions_and_nothing_of_the_machine_that_wrote_them() -> None:
    for line in (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", line), line
        assert "/" not in line.replace(".ci/", ""), line


@pytest.mark.parametrize("extra", DEPENDENCIES)
def test_every_dependency_is_constrained_to_a_version_that_it_allows(extra: str) -> None:
    versions = constraints()
    for line in DEPENDENCIES[extra]:
        requirement = Requirement(line)
        if requirement.name == "avdetect":
            continue
        version = versions.get(_plain(requirement.name))
        assert version is not None, f"{requirement.name} is not in .ci/constraints.txt: run .ci/freeze"
        assert requirement.specifier.contains(version), f"{requirement} in pyproject.toml, {version} in constraints"


def test_torch_and_what_is_built_for_it_are_exact() -> None:
    pins = {Requirement(line).name: str(Requirement(line).specifier) for line in EXTRAS["train"]}
    assert {name: pins[name] for name in ("torch", "torchvision", "torchaudio")} == {
        "torch": "==2.11.0",
        "torchvision": "==0.26.0",
        "torchaudio": "==2.11.0",
    }
