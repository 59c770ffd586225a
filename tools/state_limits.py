"""State in a bundle what its model cannot do, as its training configuration says it.

    python tools/state_limits.py BUNDLE --config configs/release.yaml

For bundles that were exported before the configuration had `limits`, or whose wording changed: only bundle.json is
written anew, in this version's format. Its digest, which names the bundle, changes; no score does.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from avdetect.bundle import FORMAT, Bundle, write_bundle
from avdetect.config import TrainConfig, load_yaml
from avdetect.errors import AVDetectError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--config", type=Path, required=True, help="YAML file of training, with `limits`")
    args = parser.parse_args(argv)
    try:
        bundle, limits = Bundle.load(args.bundle), load_yaml(TrainConfig, args.config).limits
        training = dict(bundle.info.training)
        if "config" in training:
            training["config"] = training["config"] | {"limits": list(limits)}
        info = dataclasses.replace(bundle.info, format=FORMAT, limits=limits, training=training)
        write_bundle(args.bundle, info, bundle.files)
        print(f"{args.bundle}: {len(limits)} limits, digest {Bundle.load(args.bundle).digest}")
    except AVDetectError as error:
        print(f"state_limits: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
