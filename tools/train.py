"""Train the streams and the fusion on a cache of preprocessed clips, and export a bundle: `avdetect train`."""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "train")

if __name__ == "__main__":
    sys.exit(main())
