"""Make a manifest of a dataset in its own layout, and a report of what it holds: `avdetect prepare`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "prepare")

if __name__ == "__main__":
    sys.exit(main())
