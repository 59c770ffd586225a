"""Preprocess every file of a manifest, once, into a cache that training reads: `avdetect preprocess`.

python tools/preprocess.py --manifest my.csv --cache cache --config configs/small.yaml
"""

import sys
from collections.abc import Sequence

from avdetect.cli import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("preprocess", arguments)


if __name__ == "__main__":
    sys.exit(main())
