"""Measure what a bundle can do on the files of a manifest: `avdetect evaluate`.

python tools/evaluate.py my.parquet --out results --bundle my_bundle --cache cache --out-of-fold
"""

import sys
from collections.abc import Sequence

from avdetect import cli


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(["evaluate", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
