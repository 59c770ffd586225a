"""Measure what a bundle can do on the files of a manifest: `avdetect evaluate`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "evaluate")

if __name__ == "__main__":
    sys.exit(main())
