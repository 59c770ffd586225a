"""Make a manifest of a dataset in its own layout, and a report of what it holds: `avdetect prepare`.

python tools/prepare.py folder my_videos --out mine.csv
"""

import sys
from collections.abc import Sequence

from avdetect.cli import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("prepare", arguments)


if __name__ == "__main__":
    sys.exit(main())
