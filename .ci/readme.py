"""The commands of the READMEs, for CI: what is run is what the reader is told.

    readme.py first ROOT          print the first sh block: install and score
    readme.py test ROOT           print the sh block that runs the tests
    readme.py scrfd ROOT          print the sh block that installs the extra scrfd
    readme.py rest ROOT SCRATCH   run every other sh block but installs, and the Python blocks, in a scratch folder

A block that is not to be run is a `text` block. The README comes first: later blocks use what its commands made. The
scratch folder holds the files that the commands name, made by tests/readme_media.py (put tests/ on PYTHONPATH).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

COPIED = ("tools", "configs", "avdetect")  # into the scratch folder


def documents(root: Path) -> list[Path]:
    """The README of the project, then those of its folders."""
    return [root / "README.md", *sorted(p for f in (*COPIED, "tests") for p in (root / f).rglob("README.md"))]


def blocks(root: Path, language: str) -> list[str]:
    """The text of every block in this language, in the order of the documents."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.S | re.M)
    return [block for path in documents(root) for block in pattern.findall(path.read_text(encoding="utf-8"))]


def only(root: Path, mark: str) -> str:
    """The one sh block with this mark in it."""
    (block,) = [block for block in blocks(root, "sh") if mark in block]
    return block


def rest(root: Path) -> list[str]:
    """The commands that stand in no block with a task of its own, a line each."""
    lines = "\n".join(b for b in blocks(root, "sh")[1:] if "pytest" not in b).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("pip ")]


def run_rest(root: Path, scratch: Path) -> None:
    from readme_media import make_readme_media

    scratch.mkdir(parents=True)
    make_readme_media(scratch)
    for name in COPIED:
        shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    commands = [["bash", "-euo", "pipefail", "-c", line] for line in rest(root)]
    commands += [[sys.executable, "-c", block] for block in blocks(root, "python")]
    for command in commands:
        print(f"$ {command[-1]}", flush=True)
        subprocess.run(command, cwd=scratch, check=True, timeout=600)


def main() -> None:
    action, root = sys.argv[1], Path(sys.argv[2])
    if action == "first":
        print(blocks(root, "sh")[0])
    elif action in ("test", "scrfd"):
        print(only(root, {"test": "pytest", "scrfd": "[scrfd]"}[action]))
    else:
        run_rest(root, Path(sys.argv[3]))


if __name__ == "__main__":
    main()
