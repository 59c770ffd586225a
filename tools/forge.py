"""Forge the face, the voice or their match inside a segment of genuine videos: `avdetect forge`.

python tools/forge.py interview.mp4 --out forged --method mouth_swap world --segment 2 5
"""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "forge")

if __name__ == "__main__":
    sys.exit(main())
