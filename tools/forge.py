"""Forge the face, the voice or their match inside a segment of genuine videos: `avdetect forge`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "forge")

if __name__ == "__main__":
    sys.exit(main())
