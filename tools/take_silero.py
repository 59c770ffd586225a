"""Copy Silero's speech detector and its licence out of the installed wheel (done once; the result is committed).

    pip install --no-deps silero-vad==6.2.3
    python tools/take_silero.py avdetect/weights/silero

Input `input` (steps, 64 + 512): 512 samples at 16 kHz and the 64 before them; state `h`, `c` (1, 1, 128). Outputs:
`speech_probs` (steps,), then the state. The weights are MIT, (c) 2020-present Silero Team.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

VERSION = "6.2.3"
GRAPH, LICENSE = "silero_vad/data/silero_vad_16k_sequence.onnx", "LICENSE"
SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    try:
        wheel = distribution("silero-vad")
    except PackageNotFoundError:
        return _refuse(f"silero-vad is not installed; pip install --no-deps silero-vad=={VERSION}")
    content = Path(str(wheel.locate_file(GRAPH))).read_bytes()
    if wheel.version != VERSION or hashlib.sha256(content).hexdigest() != SHA256:
        return _refuse(f"silero-vad {wheel.version} holds another network than {VERSION}; say so here if that is meant")
    licence = next(file for file in wheel.files or () if file.name == LICENSE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vad.onnx").write_bytes(content)
    (folder / LICENSE).write_bytes(Path(str(licence.locate())).read_bytes())
    print(f"{folder / 'vad.onnx'}: {len(content)} bytes")
    return 0


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
