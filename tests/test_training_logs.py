"""What a training writes down while it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loop_runs import Killed, changed, dies_at, distance, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_tensorboard_tells_each_step_once(tmp_path: Path) -> None:
    config = changed(evaluate_every=2)
    with pytest.raises(Killed):
        train(tmp_path / "a.ckpt", config, dies_at(5), evaluate=distance)
    folder = tmp_path / "tensorboard" / "a"
    for file in folder.iterdir():  # files are read by the second in their name
        file.rename(folder / "events.out.tfevents.0000000001.first")
    train(tmp_path / "a.ckpt", config, evaluate=distance)
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "samples_per_second", "dev_log_loss"}
    for tag in ("loss", "lr", "samples_per_second"):
        assert [e.step for e in events.Scalars(tag)] == list(range(6))
    assert [e.step for e in events.Scalars("dev_log_loss")] == [1, 3, 5]
    log = pd.read_csv(tmp_path / "a.csv")
    np.testing.assert_allclose([e.value for e in events.Scalars("loss")], log["loss"], atol=1e-6)
    assert all(e.value > 0 for e in events.Scalars("samples_per_second"))
