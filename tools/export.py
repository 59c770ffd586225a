"""Export the bundle of a finished training run: `avdetect export`.

python tools/export.py --run runs/mine --out my_bundle
"""

import sys
from collections.abc import Sequence

from avdetect.cli import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("export", arguments)


if __name__ == "__main__":
    sys.exit(main())
