"""Miniatures of the layouts that the adapters read (dataset_trees.toml), on disk."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

TREES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
LAYOUTS = [name for name, tree in TREES.items() if "adapter" in tree]


def put(folder: Path, *names: str) -> None:
    """Dummy media files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def put_text(path: Path, content: object) -> None:
    """Text, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def plant(name: str, folder: Path) -> Path:
    """The tree of that name under `folder`; what is to be named to its adapter."""
    tree = TREES[name]
    put(folder, *tree["media"])
    for path, text in tree.get("files", {}).items():
        put_text(folder / path, text)
    return folder / tree.get("root", "")
