"""Train the streams and the fusion on a cache of preprocessed clips, and export a bundle: `avdetect train`.

python tools/train.py --cache cache --config configs/small.yaml --run runs/mine --out my_bundle
"""

import sys
from collections.abc import Sequence

from avdetect.cli import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("train", arguments)


if __name__ == "__main__":
    sys.exit(main())
