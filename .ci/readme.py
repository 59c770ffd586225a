"""Run the commands of the README's ```sh blocks, in order, in a scratch folder that holds what they name.

Set-up and test commands are run by .ci/run itself. The training commands run with the tiny configuration on a manifest
of a few generated clips instead of the reader's own data: that substitution is stated here and nowhere else.

    readme.py ROOT SCRATCH          run them
    readme.py --test-command ROOT   print the README's test command
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SETUP = ("python3 -m venv", "pip install", ".venv/bin/pip install")
SUBSTITUTE = {"configs/default.yaml": "configs/tiny.yaml"}


def commands(root: Path) -> list[str]:
    """Every command line of the sh blocks; continuation lines joined, comments dropped."""
    blocks = re.findall(r"```sh\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def is_test(command: str) -> bool:
    return "pytest" in command


def main() -> None:
    if sys.argv[1] == "--test-command":
        (found,) = [c for c in commands(Path(sys.argv[2])) if is_test(c)]
        print(found.split("&&")[-1].strip().removeprefix(".venv/bin/"))
        return
    root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    scratch.mkdir(parents=True)
    sys.path.insert(0, str(root / "tests"))
    from readme_media import make_readme_media

    make_readme_media(scratch)
    for name in ("tools", "configs", "avdetect"):
        shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    for command in commands(root):
        if is_test(command) or any(part in command for part in SETUP):
            continue
        for old, new in SUBSTITUTE.items():
            command = command.replace(old, new)
        print(f"$ {command}", flush=True)
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=scratch, check=True, timeout=600)


if __name__ == "__main__":
    main()
