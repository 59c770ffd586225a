"""`avdetect evaluate` from a manifest to the report, on media made here."""

from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import speech, write_wav
from documents import results_table
from manifests import manifest_of
from media_factory import encode
from readme_media import SAMPLE
from sklearn.metrics import roc_auc_score

from avdetect import cli
from avdetect.bundle import OUT_OF_FOLD, Bundle, write_bundle
from avdetect.datasets.cache.build import Options, preprocess
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import read_manifest, write_manifest
from avdetect.errors import ManifestError
from avdetect.evaluation import steps, views
from avdetect.evaluation.audit import FACTS
from avdetect.evaluation.ledger import NUMBERS
from avdetect.evaluation.run import evaluate
from avdetect.evaluation.sources import CacheClips
from avdetect.evaluation.steps import container_facts
from avdetect.pooling import FEATURES
from avdetect.preprocess import Preprocessor
from avdetect.types import SAMPLE_RATE, Clip

RECORDED = 48
LOOKS = ("null", "hflip", "hue=h=40")


def manifest(folder: Path, names: list[str], **columns: object) -> Path:
    """Reals and fakes in turn, of two sources; all in dev."""
    fake = np.arange(len(names)) % 2
    sources = [f"d{i % 4 // 2}" for i in range(len(names))]
    stated = {"fake": fake, "video_fake": fake, "audio_fake": fake, "method": np.where(fake == 1, "made", "")}
    table = manifest_of([folder / name for name in names], **stated | {"split": "dev", "dataset": sources} | columns)
    write_manifest(table, folder / "manifest.csv")
    return folder / "manifest.csv"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -- clips with a face and a voice, through the whole command


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real and one fake clip of 2.6 s, one file that is no media; segments of the fake."""
    folder = tmp_path_factory.mktemp("talking")
    names = [f"{i}.mp4" for i in range(3)] + ["noise.mp4"]
    for i, name in enumerate(names[:-1]):
        start = ("-ss", str(0.5 * i), "-t", "2.6", "-i", str(SAMPLE), "-vf", f"{LOOKS[i]},scale=320:-2")
        encode(folder / name, *start, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")
    (folder / "noise.mp4").write_text("no media\n" * 99)
    return manifest(folder, names, fake_segments=[(), ((0.5, 1.5),), (), ()])


@pytest.fixture(scope="module")
def evaluated(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "results"
    assert cli.run_script("evaluate", [str(talking), "--out", str(out)]) == 0
    return out


def test_tables_pictures_and_page_are_there_and_agree(evaluated: Path, talking: Path) -> None:
    scores = pd.read_csv(evaluated / "scores.csv", keep_default_na=False, na_values=[""])
    assert scores["path"].tolist() == read_manifest(talking)["path"].tolist()
    assert scores["error"].notna().tolist() == [False] * 3 + [True]
    assert scores["error"].iloc[3].startswith("MediaError: ")
    metrics = pd.read_csv(evaluated / "metrics.csv")
    assert {"modality", "output", "stream"} <= set(metrics["table"])
    assert set(metrics["part"]) == {"all"}
    row = metrics[(metrics["table"] == "output") & (metrics["score"] == "p_fake")].iloc[0]
    assert (row["n"], row["fakes"], row["abstained"]) == (3, 1, 1)
    page = (evaluated / "report.html").read_text()
    assert views.interval(row.to_dict(), "auc") in page
    assert "1 of 4 files could not be read" in page
    for name in ("sync", "sync_shifts", "localisation", "missing"):
        assert len(pd.read_csv(evaluated / f"{name}.csv"))
    assert (evaluated / "sync.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["bundle"]["digest"] == Bundle.load().digest
    assert any("audit" in sentence for sentence in summary["not_measured"])  # three files are too few
    assert any("Robustness" in sentence for sentence in summary["not_measured"])


def test_a_second_run_scores_nothing_and_changes_nothing(
    evaluated: Path, talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(evaluated)
    for owner, name in ((Preprocessor, "open"), (steps, "measure_sync"), (steps, "measure_localisation")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("a file was read again"))
    assert cli.run(["evaluate", str(talking), "--out", str(evaluated), "--workers", "2"]) == 0
    assert contents(evaluated) == before


def test_a_cache_gives_the_same_numbers(evaluated: Path, talking: Path, tmp_path: Path) -> None:
    some, bundle, cache = [0, 1, 3], Bundle.load(), tmp_path / "cache"
    table = read_manifest(talking).iloc[some].reset_index(drop=True)
    preprocess(table, cache, bundle.info.preprocess, Options())
    found = evaluate(table, bundle, tmp_path / "out", cache=cache, audit=False, sync=False, rounds=20)
    scores = pd.read_csv(evaluated / "scores.csv")
    numbers = list(NUMBERS)
    pd.testing.assert_frame_equal(found.scores[numbers], scores[numbers].iloc[some].reset_index(drop=True), atol=1e-6)
    assert found.scores["error"].iloc[2] == scores["error"].iloc[3]
    seen: list[Clip] = []
    copy.copy(CacheClips(ClipArchive(cache), table)).feed(0, seen.append)  # what a worker process gets
    assert len(seen) == 1
    with pytest.raises(ManifestError, match=r"has not seen 1 file\(s\) .* first /gone\.mp4"):
        CacheClips(ClipArchive(cache), manifest_of(["/gone.mp4"]))


# -- out of fold: speech whose length gives it away


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RECORDED files of speech, the fakes longer, and one that is gone."""
    folder = tmp_path_factory.mktemp("spoken")
    names = [f"{i:02d}.wav" for i in range(RECORDED + 1)]
    for i, name in enumerate(names[:-1]):
        write_wav(folder / name, speech(0.6 + 0.5 * (i % 2) + 0.001 * i, seed=i))
    return manifest(folder, names, kind="speech", video_fake=None, split=["train"] * 24 + ["dev"] * 25)


def trained(spoken: Path, folder: Path, p: np.ndarray) -> Path:
    """The default bundle with the out-of-fold outputs `p` (RECORDED,) of these files."""
    paths = read_manifest(spoken)["path"][:RECORDED]
    held = pd.DataFrame({"sha256": [file_sha256(path) for path in paths], "fold": np.arange(RECORDED) // 4 % 2})
    held = held.assign(**dict.fromkeys(FEATURES, 0.0)).assign(audio_logit=p, has_audio=1.0, p_fake=p, p_audio_fake=p)
    held = held.assign(p_video_fake=np.nan, p_mismatch=np.nan, **{"ablation:audio:logistic": p})
    held.loc[RECORDED] = held.loc[0]  # a file that the manifests here do not hold, with a face
    held.loc[RECORDED, ["sha256", "has_visual"]] = ["f" * 64, 1.0]
    bundle, content = Bundle.load(), gzip.compress(held.to_csv(index=False).encode(), mtime=0)
    write_bundle(folder, bundle.info, bundle.files | {OUT_OF_FOLD: content})
    return folder


RIGHT = np.where(np.arange(RECORDED) % 5 == 0, 0.5, 0.3 + 0.4 * (np.arange(RECORDED) % 2))  # four times out of five


@pytest.fixture(scope="module")
def good(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(spoken, tmp_path_factory.mktemp("good"), RIGHT)


def length_alone(path: str) -> dict[str, float]:
    """Facts of a file, without a process of ffmpeg for each."""
    seconds = (Path(path).stat().st_size - 44) / 2 / SAMPLE_RATE
    return dict.fromkeys(FACTS, np.nan) | {"duration_seconds": seconds}


def test_out_of_fold_and_the_audit(spoken: Path, good: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(steps, "facts", length_alone)
    command = ["evaluate", str(spoken), *f"--bundle {good} --out {out} --out-of-fold --no-sync".split()]
    assert cli.run(command) == 0
    error = capsys.readouterr().err
    assert re.search(r"note: all files: speech/audio_fake: the model's AUC \.\d+ does not beat", error)
    scores, metrics = pd.read_csv(out / "scores.csv"), pd.read_csv(out / "metrics.csv")
    assert scores["fold"].notna().sum() == RECORDED
    assert scores["error"].iloc[RECORDED].startswith("NotScored: ")
    reasons = scores[["missing_visual", "missing_sync"]].iloc[:RECORDED].drop_duplicates().to_numpy().tolist()
    assert reasons == [["not recorded out of fold", "the folds trained no such stream"]]
    assert metrics["part"].drop_duplicates().tolist() == ["all", "dev"]
    audit = metrics[(metrics["table"] == "audit") & (metrics["label"] == "audio_fake")].set_index(["part", "score"])
    assert audit.loc[("all", "duration"), ["auc", "n"]].tolist() == [1, RECORDED]
    assert audit.loc[("dev", "duration"), "n"] == 24
    rows = metrics[(metrics["table"] == "output") & (metrics["part"] == "all")].set_index("score")
    assert rows.loc["p_audio_fake", "auc"] == pytest.approx(roc_auc_score(np.arange(RECORDED) % 2, RIGHT), abs=0.02)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["audit_folds"] == {"by": "given", "number": 2}
    assert summary["command"] == f"avdetect evaluate {spoken} --bundle {good} --out-of-fold --no-sync"
    page = (out / "report.html").read_text()
    for said in ("scored by streams that never saw its", "1 of 49 files have no out-of-fold output", "does not beat"):
        assert said in page
    assert "| speech | voice (audio_fake) | 48 (24) |" in results_table(out, "outputs")


def test_facts_of_a_missing_file_are_tried_again(spoken: Path, tmp_path: Path) -> None:
    paths = read_manifest(spoken)["path"].tolist()[-2:]
    for _ in range(2):
        found = container_facts(paths, tmp_path / "facts.csv", 1)
        assert found.notna().any(axis=1).tolist() == [True, False]
    assert pd.read_csv(tmp_path / "facts.csv")["path"].tolist() == paths[:1]


def test_refusals_are_one_line_and_claim_no_folder(
    spoken: Path, good: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other, new, bare, bundle = tmp_path / "other", tmp_path / "new", tmp_path / "bare", Bundle.load()
    other.mkdir()
    (other / "file").touch()
    write_bundle(bare, bundle.info, {name: data for name, data in bundle.files.items() if name != OUT_OF_FOLD})
    capsys.readouterr()
    for said, code, options in (
        ("holds no out_of_fold.csv.gz", 2, f"--out {new} --out-of-fold --bundle {bare}"),
        ("trained on other files", 2, f"--out {new} --out-of-fold"),
        ("--split training: it must be one of train, dev, test", 2, f"--out {new} --split training"),
        ("no files of the split test", 1, f"--out {new} --split test"),
        ("is no folder of an evaluation", 2, f"--out {other}"),
        ("belongs to another run (bundle: ", 2, f"--out {evaluated} --bundle {good} --out-of-fold"),
    ):
        assert cli.run(["evaluate", str(spoken), *options.split()]) == code
        captured = capsys.readouterr()
        assert said in captured.err
        assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert not new.exists()
