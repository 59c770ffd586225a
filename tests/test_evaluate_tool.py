"""`avdetect evaluate` and tools/evaluate.py from a manifest to the report, on media made here."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import subprocess
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from clips import speech
from media_factory import RENDERER
from readme_media import SAMPLE

from avdetect import cli
from avdetect.bundle import OUT_OF_FOLD, Bundle, write_bundle
from avdetect.datasets.cache.build import Options, preprocess
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.manifest import read_manifest, write_manifest
from avdetect.detector import load_detector
from avdetect.evaluation import cells, steps
from avdetect.evaluation.run import evaluate
from avdetect.evaluation.steps import container_facts
from avdetect.pooling import FEATURES
from avdetect.preprocess import Preprocessor

ROOT = Path(__file__).parents[1]
RECORDED = 48
LOOKS = ("null", "hflip", "hue=h=40")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return importlib.import_module("evaluate")


def manifest(folder: Path, names: list[str], **columns: object) -> Path:
    """Reals and fakes in turn, of two sources; all in dev."""
    fake = [i % 2 for i in range(len(names))]
    table = pd.DataFrame({"path": names, "fake": fake, "group": [f"g{i}" for i in range(len(names))], "split": "dev"})
    table["video_fake"] = table["audio_fake"] = table["fake"]
    table["method"], table["dataset"] = (
        np.where(table["fake"] == 1, "made", ""),
        [f"d{i % 4 // 2}" for i in range(len(names))],
    )
    path = folder / "manifest.csv"
    table["path"] = [str(folder / name) for name in names]
    table["original"], table["fake_segments"] = "", [()] * len(names)
    write_manifest(table.assign(**columns), path)
    return path


# -- clips with a face and a voice, through the whole command


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real and two fake clips of 2.8 s, one file that is no media; segments of one fake."""
    folder = tmp_path_factory.mktemp("talking")
    names = [f"{i}.mp4" for i in range(5)] + ["noise.mp4"]
    for i, name in enumerate(names[:-1]):
        start = ["-ss", str(0.5 * i), "-t", "2.8", "-i", str(SAMPLE), "-vf", f"{LOOKS[i % 3]},scale=320:-2"]
        output = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(folder / name)]
        subprocess.run([RENDERER, "-v", "error", "-y", *start, *output], check=True)
    (folder / "noise.mp4").write_text("no media\n" * 99)
    return manifest(folder, names, fake_segments=[(), ((0.5, 1.5),), (), (), (), ()])


@pytest.fixture(scope="module")
def evaluated(talking: Path, tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "results"
    assert tool.main([str(talking), "--out", str(out)]) == 0
    return out


def test_every_file_has_its_row_and_the_detectors_numbers(evaluated: Path, talking: Path) -> None:
    scores = pd.read_csv(evaluated / "scores.csv", keep_default_na=False, na_values=[""])
    assert scores["path"].tolist() == read_manifest(talking)["path"].tolist()
    assert scores["error"].notna().tolist() == [False] * 5 + [True]
    assert scores["error"].iloc[5].startswith("MediaError: ")
    first = load_detector(device="cpu").score(scores["path"][0])
    assert scores["p_fake"][0] == first.fake
    assert scores["p_video_fake"][0] == first.video_fake
    # The fusion is a noisy-or: with one stream alone the whole is its cause.
    assert scores["no_video:p_fake"][:5].tolist() == pytest.approx(scores["masked:audio"][:5].tolist(), abs=1e-5)
    assert scores["no_audio:p_fake"][:5].tolist() == pytest.approx(scores["masked:visual"][:5].tolist(), abs=1e-5)


def test_tables_pictures_and_page_are_there_and_agree(evaluated: Path) -> None:
    metrics = pd.read_csv(evaluated / "metrics.csv")
    assert {"modality", "output", "stream", "modality removed"} <= set(metrics["table"])
    assert set(metrics["part"]) == {"all"}
    row = metrics[(metrics["table"] == "output") & (metrics["score"] == "p_fake")].iloc[0]
    assert (row["n"], row["fakes"], row["abstained"]) == (5, 2, 1)
    page = (evaluated / "report.html").read_text()
    assert cells.interval(row.to_dict(), "auc") in page
    assert "1 of 6 files could not be read" in page
    for name in ("sync", "sync_shifts", "localisation", "missing"):
        assert len(pd.read_csv(evaluated / f"{name}.csv"))
    assert len(pd.read_csv(evaluated / "sync_shifts.csv")) == 31
    for name in ("auc_all", "sync"):
        assert (evaluated / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["bundle"]["digest"] == Bundle.load().digest
    assert any("audit" in sentence for sentence in summary["not_measured"])  # five files are too few
    assert any("Robustness" in sentence for sentence in summary["not_measured"])


def test_a_second_run_scores_nothing_and_changes_nothing(
    evaluated: Path, talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a file was read again")

    before = {path.name: path.read_bytes() for path in evaluated.iterdir() if path.is_file()}
    for owner, name in ((Preprocessor, "open"), (steps, "measure_sync"), (steps, "measure_localisation")):
        monkeypatch.setattr(owner, name, never)
    assert cli.run(["evaluate", str(talking), "--out", str(evaluated), "--workers", "2"]) == 0
    assert {path.name: path.read_bytes() for path in evaluated.iterdir() if path.is_file()} == before


def test_a_cache_gives_the_same_numbers(evaluated: Path, talking: Path, tmp_path: Path) -> None:
    table, bundle = read_manifest(talking), Bundle.load()
    preprocess(table, tmp_path / "cache", bundle.info.preprocess, Options())
    found = evaluate(table, bundle, tmp_path / "out", cache=tmp_path / "cache", audit=False, rounds=20)
    scores = pd.read_csv(evaluated / "scores.csv")
    assert found.scores["p_fake"].tolist() == pytest.approx(scores["p_fake"].tolist(), abs=1e-6, nan_ok=True)
    assert found.scores["error"].iloc[5].startswith("MediaError: ")


# -- out of fold: speech whose length gives it away


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RECORDED files of speech, the fakes longer, and one that is gone."""
    folder = tmp_path_factory.mktemp("spoken")
    names = [f"{i:02d}.wav" for i in range(RECORDED + 1)]
    for i, name in enumerate(names[:-1]):
        samples = (speech(0.6 + 0.5 * (i % 2) + 0.001 * i, seed=i) * 32767).astype("<i2")
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    return manifest(folder, names, kind="speech", video_fake=None, split=["train"] * 24 + ["dev"] * 25)


@pytest.fixture(scope="module")
def trained(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with out-of-fold outputs of these files that are right four times out of five."""
    table = read_manifest(spoken).iloc[:-1]
    p = np.where(np.arange(RECORDED) % 5 == 0, 0.5, 0.3 + 0.4 * table["fake"].to_numpy(float))
    held = pd.DataFrame({"sha256": [file_sha256(path) for path in table["path"]], "fold": np.arange(RECORDED) // 4 % 2})
    held = held.assign(**dict.fromkeys(FEATURES, 0.0)).assign(audio_logit=p, has_audio=1.0)
    held = held.assign(
        p_fake=p, p_video_fake=np.nan, p_audio_fake=p, p_mismatch=np.nan, **{"ablation:audio:logistic": p}
    )
    held.loc[RECORDED] = held.loc[0]  # a file that the manifests here do not hold, with a face
    held.loc[RECORDED, ["sha256", "has_visual"]] = ["f" * 64, 1.0]
    bundle = Bundle.load()
    content = gzip.compress(held.to_csv(index=False).encode(), mtime=0)
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder, bundle.info, bundle.files | {OUT_OF_FOLD: content})
    return folder


def test_out_of_fold_and_the_audit(spoken: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert cli.run(["evaluate", str(spoken), "--out", str(out), "--bundle", str(trained), "--out-of-fold"]) == 0
    scores = pd.read_csv(out / "scores.csv")
    assert scores["fold"].notna().sum() == RECORDED
    assert scores["error"].iloc[RECORDED].startswith("NotScored: ")
    reasons = scores[["missing_visual", "missing_sync"]].iloc[:RECORDED].drop_duplicates().to_numpy().tolist()
    assert reasons == [["not recorded out of fold", "the folds trained no such stream"]]
    metrics = pd.read_csv(out / "metrics.csv")
    assert metrics["part"].drop_duplicates().tolist() == ["all", "dev"]
    audit = metrics[(metrics["table"] == "audit") & (metrics["label"] == "audio_fake")].set_index(["part", "score"])
    assert audit.loc[("all", "duration"), "auc"] == 1
    assert audit.loc[("all", "duration"), "n"] == RECORDED
    assert audit.loc[("dev", "duration"), "n"] == 24
    page = (out / "report.html").read_text()
    assert "every file was scored by streams that never saw its" in page
    assert "does not beat" in page
    assert "1 of 49 files have no out-of-fold output" in page
    error = capsys.readouterr().err
    assert re.search(r"note: all files: speech/audio_fake: the model's AUC \.\d+ does not beat", error)
    assert json.loads((out / "summary.json").read_text())["audit_folds"] == {"by": "given", "number": 2}


def test_documents_are_updated_from_a_folder(
    spoken: Path, trained: Path, tmp_path: Path, tool: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    out, document = tmp_path / "out", tmp_path / "README.md"
    document.write_text("<!-- results: outputs -->\n<!-- end results -->\n")
    arguments = [str(spoken), "--out", str(out), "--bundle", str(trained), "--out-of-fold", "--no-audit", "--no-sync"]
    assert tool.main([*arguments, "--update-docs", str(document)]) == 0
    text = document.read_text()
    assert "| speech | voice (audio_fake) | 48 (24) |" in text
    assert tool.main(["--out", str(out), "--update-docs", str(document)]) == 0
    assert document.read_text() == text
    assert capsys.readouterr().out.endswith("up to date\n")
    document.write_text("<!-- results: wrong -->\n<!-- end results -->\n")
    assert tool.main(["--out", str(out), "--update-docs", str(document)]) == 1
    assert "there is no results table 'wrong'" in capsys.readouterr().err
    assert tool.main(["--update-docs", str(document)]) == 2


def test_facts_of_a_missing_file_are_tried_again(spoken: Path, tmp_path: Path) -> None:
    paths = read_manifest(spoken)["path"].tolist()[-2:]
    for _ in range(2):
        found = container_facts(paths, tmp_path / "facts.csv", 1)
        assert found.notna().any(axis=1).tolist() == [True, False]
    assert pd.read_csv(tmp_path / "facts.csv")["path"].tolist() == paths[:1]


# -- refusals


def refused(arguments: list[str], capsys: pytest.CaptureFixture, code: int = 2) -> str:
    assert cli.run(["evaluate", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_refusals_are_one_line(
    spoken: Path, trained: Path, evaluated: Path, talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    asked = [str(spoken), "--out", str(tmp_path / "new")]
    bundle = Bundle.load()
    files = {name: content for name, content in bundle.files.items() if name != OUT_OF_FOLD}
    write_bundle(tmp_path / "bare", bundle.info, files)
    bare = ["--bundle", str(tmp_path / "bare")]
    assert "holds no out_of_fold.csv.gz" in refused([*asked, "--out-of-fold", *bare], capsys)
    assert "trained on other files" in refused([*asked, "--out-of-fold"], capsys)
    assert not (tmp_path / "new").exists(), "a refusal claims no folder"
    assert "--split training: it must be one of train, dev, test" in refused([*asked, "--split", "training"], capsys)
    assert "no files of the split test" in refused([*asked, "--split", "test"], capsys, 1)
    assert "is no folder of an evaluation" in refused([str(spoken), "--out", str(tmp_path / "other")], capsys)
    error = refused([str(talking), "--out", str(evaluated), "--bundle", str(trained)], capsys)
    assert "belongs to another run (bundle: " in error
    assert "name another --out, or delete the folder" in error
    error = refused([str(talking), "--out", str(tmp_path / "x"), "--bundle", str(trained), "--out-of-fold"], capsys)
    assert "was trained on other files" in error


def test_help_names_every_option(tool: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert tool.main(["--help"]) == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    for (
        option
    ) in "--out --bundle --cache --split --out-of-fold --beside --robustness --workers --no-audit --no-sync".split():
        assert option in text
    assert "--update-docs" in text
