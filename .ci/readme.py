"""The README's commands, for CI: what is run is what the reader is told.

    readme.py first ROOT          print the first sh block: install and score
    readme.py test ROOT           print the sh block that runs the tests
    readme.py scrfd ROOT          print the sh block that installs the extra scrfd
    readme.py rest ROOT SCRATCH   run every other sh block but installs, and the Python block, in a scratch folder

The scratch folder holds the files that the README names, made by tests/readme_media.py (put tests/ on PYTHONPATH).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path


def blocks(root: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)


def run_rest(root: Path, scratch: Path) -> None:
    from readme_media import make_readme_media

    scratch.mkdir(parents=True)
    make_readme_media(scratch)
    for name in ("tools", "configs", "avdetect"):
        shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    lines = "\n".join(b for b in blocks(root, "sh")[1:] if "pytest" not in b).replace("\\\n", " ").splitlines()
    commands = [["bash", "-euo", "pipefail", "-c", line] for line in lines if line and not line.startswith("pip ")]
    commands += [[sys.executable, "-c", block] for block in blocks(root, "python")]
    for command in commands:
        print(f"$ {command[-1]}", flush=True)
        subprocess.run(command, cwd=scratch, check=True, timeout=600)


def main() -> None:
    action, root = sys.argv[1], Path(sys.argv[2])
    if action == "first":
        print(blocks(root, "sh")[0])
    elif action in ("test", "scrfd"):
        (block,) = [b for b in blocks(root, "sh") if {"test": "pytest", "scrfd": "[scrfd]"}[action] in b]
        print(block)
    else:
        run_rest(root, Path(sys.argv[3]))


if __name__ == "__main__":
    main()
