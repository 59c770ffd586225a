"""Export the bundle of a finished training run: `avdetect export`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "export")

if __name__ == "__main__":
    sys.exit(main())
