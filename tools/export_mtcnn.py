"""Export MTCNN's three networks from facenet-pytorch's wheel to ONNX (done once; the result is committed).

    pip install torch==2.11.0 "facenet-pytorch==2.5.3" --no-deps && pip install onnx
    python tools/export_mtcnn.py avdetect/weights/mtcnn

Inputs are float32 RGB scaled to (x - 127.5) / 128: P-Net any (1, 3, H, W), R-Net (N, 3, 24, 24), O-Net (N, 3, 48, 48).
Outputs: `boxes` (offsets of the box sides in units of its width and height), `scores` (softmax; [:, 1] = face) and, for
O-Net, `points` (five x, then five y, in units of the box). The weights are MIT, (c) 2019 Timothy Esler.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from avdetect.extras import script_imports

with script_imports("export_mtcnn", "dev"):
    import onnx
    import torch
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

OPSET = 13  # old enough for every supported onnxruntime


class FastPReLU(torch.nn.Module):
    """PReLU as operators that onnxruntime's CPU kernels vectorise: its own PRelu took a third of the networks' time."""

    def __init__(self, slope: torch.Tensor, dims: int) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(slope.detach().reshape(-1, *[1] * dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * (1 - self.slope) + x * self.slope


def export(net: torch.nn.Module, sample: torch.Tensor, outputs: list[str], axes: dict[int, str], path: Path) -> None:
    """Trace `net` on `sample` and write `path`; `axes` names the input dimensions that may vary."""
    for name, module in list(net.named_children()):
        if isinstance(module, torch.nn.PReLU):
            after_linear = isinstance(getattr(net, name.replace("prelu", "dense"), None), torch.nn.Linear)
            setattr(net, name, FastPReLU(module.weight, dims=0 if after_linear else 2))
    # The same dimensions vary in the outputs. P-Net's maps are smaller than its picture, so they need other names.
    output_axes = {axis: name if name == "batch" else f"map_{name}" for axis, name in axes.items()}
    dynamic = {"image": axes} | dict.fromkeys(outputs, output_axes)
    torch.onnx.export(
        net.eval(),
        (sample,),
        str(path),
        input_names=["image"],
        output_names=outputs,
        dynamic_axes=dynamic,
        opset_version=OPSET,
        dynamo=False,  # the TorchScript exporter keeps ceil-mode pooling a single node
    )
    model = onnx.load(str(path))
    model.doc_string = "MTCNN from facenet-pytorch 2.5.3, MIT, (c) 2019 Timothy Esler"
    model.producer_name, model.producer_version = "avdetect/tools/export_mtcnn.py", ""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where pnet.onnx, rnet.onnx and onet.onnx go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    export(PNet(), torch.zeros(1, 3, 97, 61), ["boxes", "scores"], {2: "height", 3: "width"}, folder / "pnet.onnx")
    export(RNet(), torch.zeros(2, 3, 24, 24), ["boxes", "scores"], {0: "batch"}, folder / "rnet.onnx")
    export(ONet(), torch.zeros(2, 3, 48, 48), ["boxes", "points", "scores"], {0: "batch"}, folder / "onet.onnx")


if __name__ == "__main__":
    main()
