"""Pack balanced face crops of a preprocessing cache into one file, to train an image encoder elsewhere.

Sources of real material and generators of fakes are drawn alike, a fake with its original. Crops stay lossless
(avdetect.training.packs says why). With --split train, what is measured on dev later was never seen.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avdetect.cli.console import exit_code, kept
from avdetect.extras import importing


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder that avdetect preprocess wrote")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--split", choices=("train", "all"), default="train", help="what to draw from (default train)")
    parser.add_argument("--max-mib", type=float, default=60.0, help="size of the file at most (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    return exit_code(lambda: pack(**vars(parser.parse_args(argv))), name="pack_faces", usage=1)


def pack(cache: Path, out: Path, split: str, max_mib: float, seed: int) -> None:
    with importing("train", "packing"):
        import numpy as np

        from avdetect.datasets.clips import ClipArchive
        from avdetect.training.packs import contents, open_pack, write_pack
        from avdetect.training.sampling import Subset

    archive = ClipArchive(cache)
    rows = np.flatnonzero((archive.files["split"] == split) | (split == "all"))
    with kept(out, "nothing is packed"):
        write_pack(Subset(archive, rows), out, int(max_mib * 1024**2), seed)
    with tempfile.TemporaryDirectory() as folder:
        table = contents(open_pack(out, Path(folder)))
    crops, files, size = table["crops"].sum(), table["files"].sum(), out.stat().st_size / 1024**2
    print(f"{table.to_string(index=False)}\n{out}: {crops} crops of {files} files, {size:.1f} MiB")


if __name__ == "__main__":
    raise SystemExit(main())
