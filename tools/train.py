"""Train the streams and the fusion on a cache of preprocessed clips, and export a bundle: `avdetect train`.

python tools/train.py --cache cache --config configs/small.yaml --run runs/mine --out my_bundle
"""

import sys
from functools import partial

from avdetect.cli import run_script

main = partial(run_script, "train")

if __name__ == "__main__":
    sys.exit(main())
