"""Train the streams and the fusion on a cache of preprocessed clips, and export a bundle.

    python tools/train.py --cache cache --config configs/small.yaml --run runs/mine --out my_bundle

The cache is what tools/preprocess.py wrote. Killed at any moment and started again, training goes on where it was and
ends in the same weights: checkpoints, logs and out-of-fold outputs live under --run. Files whose split is "train" are
trained on; "dev" chooses weights and the probability clip; "test", where there is one, is only measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from avdetect.config import TrainConfig, load_yaml
from avdetect.errors import AVDetectError
from avdetect.extras import importing


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    try:
        return _run(args)
    except AVDetectError as error:
        print(f"train: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder that tools/preprocess.py wrote")
    parser.add_argument("--config", type=Path, required=True, help="YAML of differences from the defaults")
    parser.add_argument("--run", type=Path, required=True, help="working folder: checkpoints, logs, results")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported bundle")
    parser.add_argument(
        "--pretrained", help="safetensors of the image encoder, a file or a folder; overrides the YAML's"
    )
    parser.add_argument("--pretrained-audio", help="the same for the voice; overrides model.audio.pretrained")
    parser.add_argument("--detector-model", type=Path, help="weights of the face detector, as for preprocess.py")
    parser.add_argument("--devices", type=int, default=1, help="processes to train in, one a device (default 1)")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches, for each device")
    return parser


def _run(args: argparse.Namespace) -> int:
    with importing("train", "training"):  # seconds, and --help needs none of it
        import pandas as pd

        from avdetect.datasets.clips import ClipArchive
        from avdetect.pooling import PART_OF
        from avdetect.training.loop import make_fabric
        from avdetect.training.results import check_detector, export
        from avdetect.training.run import Settings, train

    config = load_yaml(TrainConfig, args.config)
    fabric = make_fabric(args.devices, args.accelerator)
    archive = ClipArchive(args.cache)
    archive.check_sources()
    check_detector(config, archive.fingerprint, args.detector_model)
    train(
        config,
        archive,
        args.run,
        Settings(fabric, args.workers),
        {"visual": args.pretrained, "audio": args.pretrained_audio},
    )
    if not fabric.is_global_zero:
        return 0
    _, result = export(args.run, args.out, detector_model=args.detector_model)
    for split, metrics in result["metrics"].items():
        rows = pd.DataFrame(metrics["rows"]).to_string(index=False, float_format="%.3f", na_rep="")
        print(f"\n{split}:\n{rows if metrics['rows'] else 'only one class: nothing to measure'}")
    fusion = result["fusion"]
    losses = ", ".join(f"{kind} {loss['fake']:.3f}" for kind, loss in fusion["oof_log_loss"].items())
    print(f"\nfusion: {fusion['kind']} (out-of-fold log loss: {losses}), calibrated by {fusion['calibrated_by']}")
    for stream in fusion["silent"]:
        print(f"the {stream} stream carries no information about {PART_OF[stream]}: it abstains")
    print(f"bundle: {args.out}\nscore a video with it:\n  avdetect score clip.mp4 --bundle {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
