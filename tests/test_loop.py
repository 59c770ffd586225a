"""The training loop: exact resume, parts that add up to the joint batch, the best average, clear stops, logs."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from loop_runs import (
    FABRIC,
    Killed,
    Sample,
    assert_equal,
    assert_same_files,
    changed,
    dies_at,
    distance,
    loss_of,
    make_batch,
    never,
    state_of,
    train,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from avdetect.errors import ConfigError, ModelError
from avdetect.training.loop import Batches, learning_rate, make_fabric

torch.set_num_threads(1)  # networks this small only wait for a second thread
FORK = multiprocessing.get_context("fork")  # torch is imported once


def half(scale: float = 2.0**16) -> Fabric:
    """fp16 on the CPU is for tests only: make_fabric refuses it."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fabric.launch()
    return fabric


@pytest.mark.parametrize(("killed_at", "precision"), [(3, "32-true"), (5, "bf16-mixed"), (5, "16-mixed")])
def test_a_killed_run_goes_on_exactly(tmp_path: Path, killed_at: int, precision: str) -> None:
    config = changed(precision=precision, accumulate=2)

    def begun(name: str, batches: Batches = make_batch) -> nn.Module:
        fabric = half(2.0**15) if precision == "16-mixed" else FABRIC
        return train(tmp_path / f"{name}.ckpt", config, batches, fabric=fabric)

    straight = begun("a")
    with pytest.raises(Killed):
        begun("b", dies_at(killed_at))
    assert len((tmp_path / "b.csv").read_text().splitlines()) == killed_at + 1
    resumed = begun("b", lambda step, *part: make_batch(step, *part) if step >= 3 else never(step, *part))
    assert_equal(straight, resumed)
    assert_same_files(tmp_path)
    state = state_of(tmp_path / "a.ckpt")
    assert state["step"] == 6
    assert state["precision"].get("scale") != 2.0**15, "it is one of the things that are resumed"


def test_a_real_kill_leaves_no_trace(tmp_path: Path) -> None:
    """SIGKILL of the process, wherever it is, and once more; then to the end."""
    config = changed(steps=24, evaluate_every=4, lr=0.01)

    def slow(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        time.sleep(0.005 if step < 20 else 60)  # however late the kill comes, it is not too late
        return make_batch(step, part, parts)

    straight = train(tmp_path / "a.ckpt", config, evaluate=distance)
    log = tmp_path / "b.csv"
    for lines in (6, 14):
        child = FORK.Process(target=train, args=(tmp_path / "b.ckpt", config, slow), kwargs={"evaluate": distance})
        child.start()
        assert child.pid is not None
        while child.is_alive() and (not log.exists() or len(log.read_text().splitlines()) < lines):
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "it was still training"
    assert 6 <= state_of(tmp_path / "b.ckpt")["step"] < 24
    resumed = train(tmp_path / "b.ckpt", config, evaluate=distance)
    assert_equal(straight, resumed)
    assert_same_files(tmp_path)


def test_a_line_cut_short_is_not_taken_for_an_early_step(tmp_path: Path) -> None:
    config = changed(steps=24, checkpoint_every=12)
    straight = train(tmp_path / "a.ckpt", config)
    with pytest.raises(Killed):
        train(tmp_path / "b.ckpt", config, dies_at(20))
    log = tmp_path / "b.csv"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:20]) + "1")  # of "19,…"
    assert_equal(straight, train(tmp_path / "b.ckpt", config))
    assert_same_files(tmp_path)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    done = train(tmp_path / "a.ckpt", workers=2)
    log = (tmp_path / "a.csv").read_text()
    assert_equal(done, train(tmp_path / "b.ckpt"))  # without worker processes
    assert_equal(done, train(tmp_path / "a.ckpt", batches=never))
    # How often it is saved does not change what is learned.
    assert_equal(done, train(tmp_path / "a.ckpt", changed(checkpoint_every=5), never))
    assert (tmp_path / "a.csv").read_text() == log


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, save, calls = train(tmp_path / "a.ckpt"), torch.save, []

    def cut_short(state: dict, file: IO[bytes]) -> None:
        calls.append(state)
        if len(calls) == 2:
            file.write(b"half")
            raise Killed
        save(state, file)

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(Killed):
        train(tmp_path / "b.ckpt")
    monkeypatch.undo()
    assert state_of(tmp_path / "b.ckpt")["step"] == 3
    assert_equal(straight, train(tmp_path / "b.ckpt"))
    assert_same_files(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_a_checkpoint_that_is_damaged_or_of_another_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()
    for content, changes, message in (
        (before, {"config": changed(lr=0.1)}, r"lr 0\.05 \(here 0\.1\)"),
        (before, {"seed": 4}, r"seed 3 \(here 4\)"),
        (before, {"plain": True}, "another network"),
        (before[:-10], {}, "damaged"),
        (b"", {}, "damaged"),
    ):
        (tmp_path / "a.ckpt").write_bytes(content)
        with pytest.raises(ModelError, match=f"{message}.*name a new --run folder"):
            train(tmp_path / "a.ckpt", batches=never, **changes)
        assert (tmp_path / "a.ckpt").read_bytes() == content


def test_the_loop_is_plain_adamw_with_clipping_and_an_average(tmp_path: Path) -> None:
    config = changed(steps=12, weight_decay=0.1, ema_decay=0.7)

    def steep(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scale = 1000.0 if batch["x"][0, 0] > 0 else 0.1  # so that some steps are clipped and some are not
        return scale * loss_of(module, batch)

    trained = train(tmp_path / "a.ckpt", config, plain=True, loss=steep)
    torch.manual_seed(0)
    module, average, clipped = Sample(plain=True), Sample(plain=True), 0
    average.load_state_dict(module.state_dict())
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.1)
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.zero_grad()
        steep(module, make_batch(step, 0, 1)).backward()
        clipped += int(nn.utils.clip_grad_norm_(module.parameters(), 5.0) > 5)
        optimizer.step()
        decay = min(0.7, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(average.parameters(), module.parameters(), strict=True):
                a.copy_(decay * a + (1 - decay) * b)
    assert 0 < clipped < 12
    assert_equal(trained, average, 1e-6)


def test_accumulated_parts_make_the_whole_batch(tmp_path: Path) -> None:
    whole = train(tmp_path / "a.ckpt", plain=True)
    parts: list[tuple[int, int, int]] = []

    def recorded(*part: int) -> dict[str, torch.Tensor]:
        parts.append(part)
        return make_batch(*part)

    assert_equal(whole, train(tmp_path / "b.ckpt", changed(accumulate=4), recorded, plain=True), 1e-6)
    assert parts == [(s, p, 4) for s in range(6) for p in range(4)]
    logs = [pd.read_csv(tmp_path / f"{n}.csv") for n in "ab"]
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], atol=2e-6)


@pytest.mark.parametrize("killed_at", [None, 5, 8])
def test_the_best_average_is_returned(tmp_path: Path, killed_at: int | None) -> None:
    config = changed(steps=12, checkpoint_every=3, evaluate_every=2)
    if killed_at is not None:
        with pytest.raises(Killed):
            train(tmp_path / "a.ckpt", config, dies_at(killed_at), evaluate=distance)
    best = train(tmp_path / "a.ckpt", config, evaluate=distance)
    losses = {n: 0.2 + abs(math.sin(n)) for n in range(2, 13, 2)}
    assert best.body[1].num_batches_tracked == min(losses, key=losses.__getitem__) == 6
    assert not best.training
    dev = pd.read_csv(tmp_path / "a.dev.csv")
    assert dev["step"].tolist() == [1, 3, 5, 7, 9, 11]
    np.testing.assert_allclose(dev["log_loss"], list(losses.values()), atol=1e-6)
    assert_equal(best, train(tmp_path / "a.ckpt", config, never, evaluate=lambda _: pytest.fail("done already")))


def test_measuring_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    def careless(average: nn.Module) -> float:
        assert not average.training
        torch.rand(7)
        average.train().double()
        average.float()
        return -float(average.body[1].num_batches_tracked)  # the last is the best

    config = changed(evaluate_every=2)
    assert_equal(train(tmp_path / "a.ckpt", config), train(tmp_path / "b.ckpt", config, evaluate=careless))
    asked = train(tmp_path / "d.ckpt", evaluate=lambda _: pytest.fail("not asked for"))
    assert_equal(train(tmp_path / "c.ckpt"), asked)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    def poisoned(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        batch = make_batch(step, part, parts)
        return {**batch, "x": batch["x"] * (math.inf if step == 4 else 1)}

    with pytest.raises(ModelError, match=r"diverged at step 4: the loss is nan; .*a\.ckpt holds.*lr \(now 0\.05\)"):
        train(tmp_path / "a.ckpt", batches=poisoned)
    assert state_of(tmp_path / "a.ckpt")["step"] == 3
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5
    assert_equal(train(tmp_path / "a.ckpt"), train(tmp_path / "b.ckpt"))
    with pytest.raises(ModelError, match="log loss on dev is"):
        train(tmp_path / "c.ckpt", changed(evaluate_every=2), evaluate=lambda _: math.nan)


def no_gradient(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (module(batch["x"]) * 0).sqrt().mean()  # 0, with a derivative of infinity times 0


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"diverged at step 0: the gradient's norm is nan\. Lower"):
        train(tmp_path / "a.ckpt", loss=no_gradient)
    assert not (tmp_path / "a.ckpt").exists()
    with pytest.raises(ModelError, match=r"diverged at step 17.*16-mixed"):  # fp16 skips some, but not ever more
        train(tmp_path / "b.ckpt", changed(precision="16-mixed", steps=40), loss=no_gradient, fabric=half())


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        make_fabric(accelerator="abacus")
    with pytest.warns(UserWarning, match="not supported on CPU"), pytest.raises(ConfigError, match="bf16-mixed"):
        make_fabric(accelerator="cpu", precision="16-mixed")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="use it with devices=2"):
        make_fabric(1, "cpu")


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


def train_on_rank(rank: int, port: int, folder: Path) -> None:
    """As torchrun starts it; what the rank ends with goes to the folder."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    fabric = make_fabric(2, "cpu")
    asked: list[int] = []

    def score(average: nn.Module) -> float:
        asked.append(rank)
        return 1.0 / len(asked)  # the last is the best

    def poisoned(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        batch = make_batch(step, part, parts)
        return {**batch, "x": batch["x"] * math.nan} if (step, part) == (4, 1) else batch

    ended: dict[str, object] = {}
    for name, config, plain in (
        ("plain", changed(), True),
        ("accumulated", changed(accumulate=2), True),
        ("bf16", changed(precision="bf16-mixed", evaluate_every=2), False),
    ):
        average = train(folder / f"{name}.ckpt", config, fabric=fabric, plain=plain, evaluate=score)
        ended[name] = dict(average.state_dict())
    try:
        train(folder / "poisoned.ckpt", batches=poisoned, fabric=fabric, plain=True)
    except ModelError as error:
        ended["poisoned"] = str(error)
    torch.save(ended | {"asked": len(asked)}, folder / f"rank{rank}.pt")
    fabric.barrier()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """The folder of two processes that talk over gloo, and what each of them ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [FORK.Process(target=train_on_rank, args=(rank, port, folder)) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0]
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_train_as_one(tmp_path: Path, two_ranks: tuple[Path, list[dict]], name: str) -> None:
    """Also with a head that no batch reaches."""
    folder, ended = two_ranks
    one = dict(train(tmp_path / "a.ckpt", plain=True).state_dict())
    for rank in ended:
        torch.testing.assert_close(rank[name], one, atol=1e-6, rtol=0)
        torch.testing.assert_close(rank[name], ended[0][name], atol=0, rtol=0)
    logs = [pd.read_csv(tmp_path / "a.csv"), pd.read_csv(folder / f"{name}.csv")]
    assert logs[1]["step"].tolist() == list(range(6))
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], atol=2e-6)


def test_rank_0_measures_and_all_return_its_best_or_stop(two_ranks: tuple[Path, list[dict]]) -> None:
    folder, ended = two_ranks
    torch.testing.assert_close(ended[0]["bf16"], ended[1]["bf16"], atol=0, rtol=0)
    assert ended[0]["bf16"]["body.1.num_batches_tracked"] == 6
    assert [rank["asked"] for rank in ended] == [3, 0]
    assert pd.read_csv(folder / "bf16.dev.csv")["log_loss"].tolist() == pytest.approx([1, 0.5, 1 / 3], abs=1e-6)
    for rank in ended:
        assert "diverged at step 4: the loss is nan" in rank["poisoned"], "poison in one stops both"
    assert state_of(folder / "poisoned.ckpt")["step"] == 3
