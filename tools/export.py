"""Export the bundle of a finished training run.

    python tools/export.py --run runs/mine --out my_bundle [--name NAME] [--licence TEXT]

tools/train.py does this at its end; this is for exporting again, under another name or with another version.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from avdetect.errors import AVDetectError
from avdetect.extras import importing


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="working folder of tools/train.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported bundle")
    parser.add_argument("--name", help="of the bundle; overrides the configuration's")
    parser.add_argument("--licence", help="of the weights; overrides the configuration's")
    parser.add_argument("--detector-model", type=Path, help="weights of the face detector, as for preprocess.py")
    args = parser.parse_args(argv)
    try:
        with importing("train", "exporting"):  # seconds, and --help does not need it
            from avdetect.training.results import export
        export(args.run, args.out, name=args.name, licence=args.licence, detector_model=args.detector_model)
    except AVDetectError as error:
        print(f"export: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"bundle: {args.out}\nscore a video with it:\n  avdetect score clip.mp4 --bundle {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
