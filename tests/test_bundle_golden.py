"""The golden scores of a bundle: what is altered is noticed, and nothing is unpickled."""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bundle import CONFIG, build_model, copy, export, exported, model, networks, put, random_input  # noqa: F401  # some are fixtures

from avdetect.bundle import GOLDEN_TOLERANCE, GRAPHS, Bundle, OnnxNetworks, replay_golden
from avdetect.errors import ModelError
from avdetect.export import PARITY_TOLERANCE

torch.set_num_threads(1)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [npz(**{"visual.input": np.array([Bomb()], dtype=object)}), pickle.dumps(Bomb()), b"PK\x03\x04 truncated"],
)
def test_golden_scores_that_are_no_plain_arrays_are_refused(copy: Path, networks: OnnxNetworks, content: bytes) -> None:
    put(copy, "golden.npz", content)
    with pytest.raises(ModelError, match=r"golden\.npz"):
        replay_golden(Bundle.load(copy), networks)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mouth.output": None}, "cannot be replayed"),
        ({"mouth.input": np.zeros((1, 2), np.uint8)}, r"mouth\.onnx of .* cannot be run"),
    ],
)
def test_golden_scores_of_other_graphs_are_a_model_error(
    exported: Bundle, copy: Path, networks: OnnxNetworks, change: dict, says: str
) -> None:
    put(copy, "golden.npz", npz(**{k: v for k, v in (exported.golden() | change).items() if v is not None}))
    with pytest.raises(ModelError, match=says):
        replay_golden(Bundle.load(copy), networks)


def test_loading_and_scoring_never_unpickle(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(np.lib.format, "pickle", pickle, raising=False)
    with pytest.raises(AssertionError, match="unpickled"):
        np.load(io.BytesIO(npz(a=np.array([1, "b"], dtype=object))), allow_pickle=True)["a"]
    bundle = Bundle.load(exported.folder)
    networks = OnnxNetworks(bundle, "cpu", threads=1)
    assert max(replay_golden(bundle, networks).values()) <= GOLDEN_TOLERANCE


def noticed(differences: dict[str, float]) -> set[str]:
    assert set(differences) == set(GRAPHS)
    return {graph for graph, difference in differences.items() if not difference <= GOLDEN_TOLERANCE}


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_altered_golden_score_is_noticed(exported: Bundle, copy: Path, networks: OnnxNetworks, graph: str) -> None:
    output = exported.golden()[f"{graph}.output"]
    off = output.copy()
    off.flat[-1] += 0.01
    for wrong in (off, output * np.nan, output[:0]):
        put(copy, "golden.npz", npz(**(exported.golden() | {f"{graph}.output": wrong})))
        assert noticed(replay_golden(Bundle.load(copy), networks)) == {graph}
    assert max(replay_golden(exported, networks).values()) <= PARITY_TOLERANCE


def test_other_weights_are_noticed(exported: Bundle, copy: Path, tmp_path: Path) -> None:
    model = build_model()
    with torch.no_grad():
        model.audio.head.bias.add_(0.05)
    put(copy, "audio.onnx", export(model, tmp_path / "other").files["audio.onnx"])
    bundle = Bundle.load(copy)
    assert noticed(replay_golden(bundle, OnnxNetworks(bundle, "cpu", threads=1))) == {"audio"}


@pytest.mark.parametrize("change", [{"mouth_frames": 9}, {"embedding": 6}])
def test_towers_of_another_shape_are_a_model_error(exported: Bundle, copy: Path, tmp_path: Path, change: dict) -> None:
    """Else lip-sync would be read from vectors that belong to other frames, or that cannot be compared."""
    other = export(build_model(dataclasses.replace(CONFIG, sync=dataclasses.replace(CONFIG.sync, **change))), tmp_path)
    put(copy, "mouth.onnx", other.files["mouth.onnx"])
    altered = OnnxNetworks(Bundle.load(copy), "cpu", threads=1)
    with pytest.raises(ModelError, match=r"mouth\.onnx of .* gives .*use another bundle"):
        altered.mouth(random_input("mouth", 1, np.random.default_rng(0)))
