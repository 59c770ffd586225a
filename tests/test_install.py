"""What is installed: pyproject.toml, and the constraints that the READMEs' commands give to pip."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from avdetect.extras import LIBRARIES, ONE_ONNXRUNTIME, ONE_OPENCV, how_to_install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEPENDENCIES = {"base": PROJECT["project"]["dependencies"]} | EXTRAS
del DEPENDENCIES["gpu"]  # its package takes the place of one of the base


def constraints() -> dict[str, str]:
    """Name -> version, names in lower case with dashes."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    for row in rows:  # nothing of the machine that wrote them
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", row), row
    return {_plain(name): version for name, version in (row.split("==") for row in rows)}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_constrained_to_a_version_that_it_allows() -> None:
    versions = constraints()
    for requirement in (Requirement(line) for lines in DEPENDENCIES.values() for line in lines):
        if requirement.name == "avdetect":
            continue
        version = versions.get(_plain(requirement.name))
        assert version is not None, f"{requirement.name} is not in .ci/constraints.txt: run .ci/freeze"
        assert requirement.specifier.contains(version), f"{requirement} in pyproject.toml, {version} in constraints"
    # torch and what is built for it are exact
    assert {"torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"} <= set(EXTRAS["train"])


def brought_by(extra: str) -> set[str]:
    """The packages that pyproject.toml lists for an extra, and for the extras that it includes."""
    found = set()
    for requirement in map(Requirement, EXTRAS[extra]):
        found |= set().union(*map(brought_by, requirement.extras)) or {_plain(requirement.name)}
    return found


def test_the_libraries_that_are_asked_for_are_those_of_the_extra() -> None:
    packages = importlib.metadata.packages_distributions() | {"insightface": ["insightface"]}  # it may be absent
    for extra, modules in LIBRARIES.items():
        listed = {_plain(packages[module][0]) for module in modules}
        assert listed == brought_by(extra) - {"webdataset"}  # for users' own training; avdetect does not import it


def test_nobody_is_told_to_install_avdetect_from_a_package_index() -> None:
    """Whoever registered the name there would run code on the machines of those who follow."""
    wrong = re.compile(r"pip install(?: -[-\w]+(?: [\w./]+)?)* ['\"]?avdetect\b(?!/)")
    for name in ("avdetect", "'avdetect[ray]'", "-U avdetect", "-c constraints.txt 'avdetect[ray]'"):
        assert wrong.search(f"pip install {name}")
    suffixes = (".py", ".md", ".toml", ".yaml", ".j2", ".html", ".js", "")
    folders = [path for name in ("avdetect", "tools", "tests", "configs", ".ci") for path in (ROOT / name).rglob("*")]
    texts = [path for path in [*ROOT.glob("*.*"), *folders] if path.suffix in suffixes and path.is_file()]
    assert len(texts) > 300
    assert [path for path in texts if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_documents_and_messages_say_the_same_commands() -> None:
    readme, faces, gpu = (
        (ROOT / folder / "README.md").read_text(encoding="utf-8") for folder in ("", "avdetect/faces", "configs")
    )
    for extra in EXTRAS:
        assert f"`{extra}`" in readme, f"README's table of extras lacks {extra}"
    for document, extra, then in ((faces, "scrfd", ONE_OPENCV), (gpu, "gpu", ONE_ONNXRUNTIME)):
        assert how_to_install(extra).partition(" && ")[0].partition(": ")[2] in document
        assert then in document
