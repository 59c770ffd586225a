"""Preprocess every file of a manifest, once, into a cache that training reads: `avdetect preprocess`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "preprocess")

if __name__ == "__main__":
    sys.exit(main())
