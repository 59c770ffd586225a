"""Forge the face, the voice or their match inside a segment of genuine videos: `avdetect forge`.

python tools/forge.py interview.mp4 --out forged --method mouth_swap world --segment 2 5
"""

import sys
from collections.abc import Sequence

from avdetect.cli import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("forge", arguments)


if __name__ == "__main__":
    sys.exit(main())
