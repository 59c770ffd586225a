"""Train the image encoder of a configuration from a pack of face crops, for so many minutes on one device.

A share of the sources is held out. Into --out go `encoder/`, safetensors files that together hold the weights with the
lowest log loss on the held-out files, for `avdetect train --pretrained` with the same model.visual, or with its tune:
none; and `log.jsonl`: first what was trained on what, then at each look at the held-out files their balanced and pooled
AUC and log loss. Killed and started again with the same options, it goes on from its last checkpoint.

In the run that starts from these weights, out-of-fold numbers of the sources in the pack are too good: the encoder has
seen them. Judge it by the held-out lines of the log, and by files that were not packed (dev, with --split train).
A pack's crops are not neighbours in time: forgeries that need another moment are left out. A CPU computes in float32.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from avdetect.cli.console import exit_code, kept
from avdetect.config import PairLoopConfig, TrainConfig, load_yaml, to_dict
from avdetect.errors import ConfigError
from avdetect.extras import script_imports

with script_imports("train_pack", "train"):
    import numpy as np
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from lightning.fabric import Fabric
    from safetensors.torch import save
    from torch import Tensor, nn

    from avdetect.datasets.cache.store import file_sha256
    from avdetect.datasets.clips import ClipArchive
    from avdetect.datasets.forgeries.visual import NEEDS_MOMENT, VISUAL
    from avdetect.datasets.manifest import folds
    from avdetect.evaluation.metrics import measure
    from avdetect.files import open_run_folder, write_whole
    from avdetect.model import Model
    from avdetect.streams.visual import VisualStream
    from avdetect.training.loop import fit, make_fabric
    from avdetect.training.packs import open_pack
    from avdetect.training.sampling import Subset
    from avdetect.training.streams import make_stage

TRIAL = 4  # steps; the time of a step is measured on three times as many
LOOKS = 10  # at the held-out files
FOR_LOOKS = 0.1  # share of the time that they, and the checkpoints, may take


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="file that tools/pack_faces.py wrote")
    parser.add_argument("--config", type=Path, required=True, help="YAML: model.visual and visual are read")
    parser.add_argument("--out", type=Path, required=True, help="folder of weights, log and checkpoint")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, help="to train for (default 10)")
    length.add_argument("--steps", type=int, help="to train for, instead")
    parser.add_argument("--pretrained", help="safetensors file or folder; overrides model.visual.pretrained")
    parser.add_argument("--held-out", type=float, default=0.25, help="about this share of the sources (default 0.25)")
    parser.add_argument("--max-mib", type=float, default=16.0, help="of a file of weights (default 16)")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    return exit_code(lambda: run(parser.parse_args(argv)), name="train_pack", usage=1)


def run(args: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * args.minutes
    fabric = make_fabric(accelerator=args.accelerator)
    with tempfile.TemporaryDirectory() as folder, kept(args.out, "the same command goes on from the last checkpoint"):
        archive = open_pack(args.pack, Path(folder))
        config = _config(args, fabric, archive)
        torch.manual_seed(config.seed)
        model = Model(config.model)
        whole = VisualStream(replace(config.model.visual, levels=(), contrasts=())).encoder
        _room(whole.state_dict(), args.max_mib)  # before minutes of training: does every tensor fit into a file?
        seen, held = _parts(archive, args.held_out)
        stage = make_stage("visual", model, config, seen)
        options: dict[str, Any] = {"fabric": fabric, "seed": config.seed, "workers": args.workers, "name": "visual"}
        options |= {"batches": stage.batches, "loss_of": stage.loss(config.visual.label_smoothing)}
        stated = {"pack": file_sha256(args.pack), "seed": config.seed, "steps": args.steps, "held_out": args.held_out}
        stated["model"] = to_dict(config.model.visual) | {"pretrained": bool(config.model.visual.pretrained)}
        stated["loop"] = to_dict(config.visual)
        open_run_folder(args.out, stated, "name a new folder as --out")
        log = args.out / "log.jsonl"
        if not log.exists():
            steps = args.steps or _steps_until(end, stage.module, config.visual, options)
            sources = {name: sorted(set(some.table["dataset"])) for name, some in (("seen", seen), ("held out", held))}
            first = {"steps": steps, "sources": sources, "device": str(fabric.device)}
            write_whole(log, f"{json.dumps(first)}\n".encode(), sync=True)
        loop = _of_length(config.visual, json.loads(log.read_text(encoding="utf-8").partition("\n")[0])["steps"])
        options |= {"config": loop, "checkpoint": args.out / "visual.ckpt", "evaluate": _held_out(held, loop, log)}
        trained = fit(stage.module, **options)
        _write(whole, cast(VisualStream, trained).encoder, args.max_mib, args.out / "encoder")
    print(f"{args.out / 'encoder'}: name it with avdetect train --pretrained {args.out / 'encoder'}")


def _config(args: argparse.Namespace, fabric: Fabric, archive: ClipArchive) -> TrainConfig:
    """The configuration, for this pack and device. Raises ConfigError where they do not fit each other."""
    config = load_yaml(TrainConfig, args.config)
    visual, loop = config.model.visual, config.visual
    if visual.frozen:
        raise ConfigError(f"{args.config}: with model.visual.tune: none no encoder learns; set norm or all")
    if len(visual.encoders) > 1:
        raise ConfigError(f"{args.config}: one encoder is trained, and the views have {', '.join(visual.encoders)}")
    kinds = loop.forgeries or dict.fromkeys(VISUAL, 1.0)
    kinds = {name: weight for name, weight in kinds.items() if name not in NEEDS_MOMENT}
    if loop.forged and not any(kinds.values()):
        raise ConfigError(f"{args.config}: visual.forgeries: all of them need another moment of a clip; add self_blend")
    precision = loop.precision if fabric.device.type == "cuda" else "32-true"
    loop = replace(loop, forgeries=kinds, precision=precision)
    visual = replace(visual, pretrained=args.pretrained or visual.pretrained)
    return replace(config, visual=loop, model=replace(config.model, visual=visual), preprocess=archive.config)


def _parts(archive: ClipArchive, share: float) -> tuple[Subset, Subset]:
    """What is trained on, and about `share` of the sources. Raises ManifestError where they lack a class."""
    if not 0 < share <= 0.5:
        raise ConfigError(f"--held-out {share}: a share above 0 and at most 0.5")
    fold = folds(archive.files, round(1 / share), by="dataset", labels=("video_fake",)).to_numpy()
    return Subset(archive, np.flatnonzero(fold != 0)), Subset(archive, np.flatnonzero(fold == 0))


def _of_length(loop: PairLoopConfig, steps: int) -> PairLoopConfig:
    """`loop` in so few steps: no longer a warm-up, and no longer an average, than they bear."""
    every = max(1, steps // LOOKS)
    warmup, decay = min(loop.warmup_steps, every), min(loop.ema_decay, 1 - 1 / every)
    loop = replace(loop, steps=steps, checkpoint_every=every, evaluate_every=every)
    return replace(loop, warmup_steps=warmup, ema_decay=decay)


def _steps_until(end: float, module: nn.Module, loop: PairLoopConfig, options: dict[str, Any]) -> int:
    """How many steps end then, by the time that some take on a copy of the network."""
    took = []
    for count in (TRIAL, 4 * TRIAL):
        start, short = time.monotonic(), replace(_of_length(loop, count), evaluate_every=0)
        with tempfile.TemporaryDirectory() as folder:
            fit(deepcopy(module), config=short, checkpoint=Path(folder) / "t.ckpt", **options)
        took.append(time.monotonic() - start)
    a_step = max(1e-4, (took[1] - took[0]) / (3 * TRIAL))
    return max(LOOKS, int((1 - FOR_LOOKS) * (end - time.monotonic()) / a_step))


def _held_out(subset: Subset, loop: PairLoopConfig, log: Path) -> Callable[[nn.Module], float]:
    """The log loss of the held-out files, every generator and every source alike; each time it is asked, a line."""
    archive, clips, began = subset.archive, subset.archive.clips, time.monotonic()
    labels = subset.label("video_fake")
    rows = [row for row in subset.rows.tolist() if labels[row] >= 0]

    def logit(module: nn.Module, row: int) -> float:  # of all crops of a file
        mine = clips[(clips["file"] == row) & (clips["main_faces"] > 0)]
        places = zip(mine.index.tolist(), mine["main_track"].tolist(), mine["main_faces"].tolist(), strict=True)
        crops = np.concatenate([archive.faces(clip, track, range(count)).crops for clip, track, count in places])
        return float(module(torch.from_numpy(crops).to(next(module.parameters()).device)).mean())

    def look(module: nn.Module) -> float:
        with torch.inference_mode():
            p = torch.sigmoid(torch.tensor([logit(module, row) for row in rows])).double().numpy()
        found = measure(labels[rows], p, archive.files.iloc[rows], proper=True, rounds=1)
        dev = log.with_name("visual.dev.csv").read_text(encoding="utf-8").splitlines()
        step = min(len(dev) * loop.evaluate_every, loop.steps)  # its first line is the header
        values = {name: round(found[name], 5) for name in ("auc", "auc_pooled", "log_loss")}
        with log.open("a", encoding="utf-8") as file:
            print(json.dumps({"step": step, "seconds": round(time.monotonic() - began, 1)} | values), file=file)
        return float(found["log_loss"])

    return look


def _write(whole: nn.Module, trained: nn.Module, max_mib: float, folder: Path) -> None:
    """`trained` and, behind its last level, `whole`, under timm's names; what lay in `folder` goes."""
    learnt = {name.removeprefix("maps."): value for name, value in trained.state_dict().items()}
    state = {name: value.cpu().contiguous() for name, value in (whole.state_dict() | learnt).items()}
    files = split_torch_state_dict_into_shards(state, max_shard_size=_room(state, max_mib)).filename_to_tensors
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, names in files.items():
        write_whole(folder / file, save({name: state[name] for name in names}), sync=True)


def _room(state: Mapping[str, Tensor], max_mib: float) -> int:
    """Bytes of tensors in one file, beside its header. Raises ConfigError for a tensor that no file can hold."""
    room = int(max_mib * 1024**2) - 256 * len(state)
    for name, tensor in state.items():
        if tensor.nbytes > room:
            raise ConfigError(f"{name} takes {tensor.nbytes / 1024**2:.1f} MiB: raise --max-mib")
    return room


if __name__ == "__main__":
    raise SystemExit(main())
