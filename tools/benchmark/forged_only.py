"""What forgeries alone teach: train on the real training files of a cache, measure on the real fakes of its dev split.

    python tools/benchmark/forged_only.py --cache cache --config configs/small.yaml --steps 300 --run runs/forged

No fake of the manifest is ever seen: the face and the voice stream learn from reals and forgeries of them. Prints the
ROC AUC of each stream by kind of fake (the manifest's `kind` column, where there is one) and within sources.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avdetect.config import PairLoopConfig, StreamLoopConfig, TrainConfig, load_yaml
from avdetect.errors import AVDetectError
from avdetect.extras import script_imports

with script_imports("forged_only", "train"):
    import pandas as pd

    from avdetect.datasets.clips import ClipArchive
    from avdetect.evaluation.tables import measurements, with_outputs
    from avdetect.training.loop import make_fabric
    from avdetect.training.outputs import stream_features
    from avdetect.training.pools import Part
    from avdetect.training.streams import probe_sets, train_streams


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="working folder: checkpoints and logs")
    parser.add_argument("--steps", type=int, help="of each stream that the configuration trains")
    parser.add_argument("--pretrained", help="safetensors of the image encoder to start from")
    args = parser.parse_args(argv)
    try:
        print(measured(args).to_string(index=False, float_format="%.3f", na_rep=""))
    except AVDetectError as error:
        print(f"forged_only: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def measured(args: argparse.Namespace) -> pd.DataFrame:
    """One row a measurement."""
    config = load_yaml(TrainConfig, args.config)
    visual, audio = (_forged(loop, args.steps) for loop in (config.visual, config.audio))
    steps = {"visual": visual.steps, "audio": audio.steps}
    model = dataclasses.replace(config.model, streams=tuple(s for s in config.model.streams if steps.get(s)))
    if args.pretrained:
        model = dataclasses.replace(model, visual=dataclasses.replace(model.visual, pretrained=args.pretrained))
    none = StreamLoopConfig(steps=0)
    config = dataclasses.replace(config, visual=visual, audio=audio, sync=none, joint=none, model=model)
    archive = ClipArchive(args.cache)
    real = archive.files["fake"].eq(0).fillna(False).to_numpy(bool)
    split = archive.files["split"].to_numpy()
    train, dev = Part(archive, np.flatnonzero(real & (split == "train"))), Part(archive, np.flatnonzero(split == "dev"))
    fabric = make_fabric()
    began = time.perf_counter()
    probes = probe_sets(config, [train], args.run, fabric)
    trained = train_streams(config, train, dev, args.run, fabric, probes=probes)
    print(f"trained on {len(train.rows)} real files in {time.perf_counter() - began:.0f} s")
    features = stream_features(trained, dev, fabric)
    table = dev.table.reset_index(drop=True)
    no_fusion = np.full((len(table), 3), np.nan, np.float32)
    rows = measurements(with_outputs(table, features, no_fusion), 0.5, tables=("stream", "kind", "source"))
    return rows[["table", "subset", "score", "n", "fakes", "auc", "auc_low", "auc_high"]]


def _forged(loop: PairLoopConfig, steps: int | None) -> PairLoopConfig:
    return dataclasses.replace(loop, forged=1.0, evaluate_every=0, steps=steps if steps and loop.steps else loop.steps)


if __name__ == "__main__":
    sys.exit(main())
