"""The documents: links, anchors and paths lead somewhere, the README stays short, and CI runs the commands."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from avdetect.report.data import CSV_COLUMNS, SCHEMA_FILE

ROOT = Path(__file__).parents[1]
FOLDERS = ("avdetect", "tools", "configs", "tests")
READMES = [ROOT / "README.md", *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("README.md"))]
DOCUMENTS = [*READMES, ROOT / "MODEL_CARD.md", ROOT / "CHANGELOG.md"]
MOST_WORDS, MOST_COLUMNS = 1300, 120
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
# A file or folder of this repository between backticks: `tools/train.py`, `configs/base.yaml --run x` is no path.
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)}|\.ci)/[\w./-]+)`")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The text without code blocks, which hold no links and no headings."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings: lower case, no punctuation, dashes for blanks, -1 for the second."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*?) *$", prose(path), re.M):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        seen = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{seen}" if seen else slug)
    return set(found)


def broken(path: Path) -> list[str]:
    """The links of a document that lead nowhere in this repository. Addresses are not asked."""
    bad = []
    for link in LINK.findall(prose(path)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        file = (path.parent / target).resolve() if target else path
        there = file.exists() and file.is_relative_to(ROOT)
        if not there or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            bad.append(link)
    return bad


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_and_paths_lead_somewhere_and_lines_are_short(path: Path) -> None:
    assert broken(path) == []
    if path in READMES:
        assert [p for p in PATH.findall(path.read_text(encoding="utf-8")) if not (ROOT / p).exists()] == []
    if path in READMES and path.parent.parent != ROOT / "tools":  # records of measurements, older than the rule
        long = [line for line in prose(path).splitlines() if len(line) > MOST_COLUMNS and not line.startswith("|")]
        assert long == []


def test_readme_is_short_and_names_what_stands_in_the_folders() -> None:
    readme, configs, tools = ((ROOT / n / "README.md").read_text(encoding="utf-8") for n in ("", "configs", "tools"))
    words = len(readme.split())
    assert words <= MOST_WORDS, f"{words} words: what is longer stands in the README of the folder that it is about"
    assert [p.name for p in (ROOT / "configs").glob("*.yaml") if f"({p.name})" not in configs] == []
    assert [p.name for p in (ROOT / "tools").glob("*.py") if f"({p.name})" not in tools] == []
    assert [n for n in map(name_of, READMES[1:]) if "weights" not in n and f"({n})" not in readme] == []


def test_the_report_document_names_every_field_and_column() -> None:
    text = (ROOT / "avdetect" / "report" / "README.md").read_text(encoding="utf-8")
    json_part, csv_part = (text.partition(f"## {name}\n")[2].partition("\n## ")[0] for name in ("JSON", "CSV"))
    fields = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))["$defs"]["detection"]["properties"]
    named = " ".join(line.split(" | ")[0] for line in json_part.splitlines() if line.startswith("|"))
    assert [name for name in fields if name not in named] == []
    assert ", ".join(CSV_COLUMNS) in " ".join(csv_part.split())


def test_ci_runs_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / ".ci")
    ci = importlib.import_module("readme")
    assert ci.documents(ROOT) == READMES
    assert "avdetect demo" in ci.blocks(ROOT, "sh")[0]
    assert ci.only(ROOT, "pytest").startswith("python3 -m venv")
    assert ci.only(ROOT, "[scrfd]").count("pip install") == 2
    commands = ci.rest(ROOT)
    assert all(line.startswith(("avdetect ", "python tools/", "find ", "printf ")) for line in commands)
    words = ("doctor", "--json", "--report", "--workers", "--null", "--manifest", "--engine ray", "--bundle")
    road = ("avdetect prepare", "avdetect preprocess", "avdetect train", "avdetect evaluate")
    for mark in (*words, *road, "evaluate ", "avdetect forge", "python tools/forge.py"):
        assert any(mark in line for line in commands), f"no document has a command with {mark!r}"
    # The data come before what is made of them.
    order = [next(i for i, line in enumerate(commands) if mark in line) for mark in road]
    assert order == sorted(order)
    assert len(ci.blocks(ROOT, "python")) == 1
