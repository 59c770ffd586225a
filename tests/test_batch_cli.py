"""`avdetect score` on many real files: kills, resumption, inputs, outputs and refusals, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shutil
import signal
from collections import Counter
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from batch_commands import ROOT, all_gone, family, kept_in, named_like, rows_in, start, wait_for
from clips import speech, write_wav
from conftest import Here
from media_factory import MediaFactory

from avdetect.cli import run
from avdetect.report.data import CSV_COLUMNS, SCHEMA_FILE

SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"
MEDIA = ("clap.mp4", "tone.wav", "text.mp4", "silent_film.mp4", "empty.mp4")
COPIES = 3


@pytest.fixture(scope="module")
def folder(media: MediaFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, good, silent, faceless, and no media at all; copies of them with names of their own; a face."""
    folder = tmp_path_factory.mktemp("batch") / "media"
    folder.mkdir()
    for name in MEDIA:
        for i in range(COPIES):
            shutil.copy(media(name), folder / f"{i}_{name}")
    shutil.copy(SAMPLE, folder / "3_face.mp4")
    return folder


def test_a_run_that_is_interrupted_and_killed_goes_on_to_the_same_table(
    folder: Path, tmp_path: Path, here: Here
) -> None:
    straight = here("score", "media", "--duration", 1, cwd=folder.parent, code=1)
    table = pd.read_csv(io.StringIO(straight.stdout))
    names = sorted(f"media/{path.name}" for path in folder.iterdir())
    assert (table["path"].tolist(), list(table.columns)) == (names, list(CSV_COLUMNS))
    assert Counter(table["error"].dropna()) == {"MediaError": 2 * COPIES}
    assert Counter(table["verdict"].dropna())["abstain"] >= COPIES  # a film that is silent and shows nobody
    assert "16 files: 10 scored" in straight.stderr

    out, journal = tmp_path / "r.csv", tmp_path / "r.csv.journal"
    command = ("media", "--workers", 2, "--out", out, "--duration", 1)
    for reached, number in ((3, signal.SIGINT), (8, signal.SIGKILL)):
        with start(*command, cwd=folder.parent, start_new_session=True) as process:
            if number == signal.SIGINT:  # a worker that is killed costs nothing
                wait_for(lambda: rows_in(out) >= 1, process)
                os.kill(named_like(b"spawn_main", process.pid)[0], signal.SIGKILL)
            wait_for(lambda enough=reached: rows_in(out) >= enough, process)
            everybody = family(process.pid)
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            _, err = process.communicate(timeout=60)
        assert all_gone(everybody, 10), "a process outlived its parent"
        assert straight.stdout.startswith(out.read_text()[: out.read_text().rfind("\n") + 1])
        if number == signal.SIGINT:
            assert process.returncode == 130, err
            assert "the same command goes on" in err
            assert len(err.splitlines()) == 1
    kept = len(kept_in(journal))
    assert 8 <= rows_in(out) <= kept < 16  # what stands in the table stands in the journal
    done = here("score", *command, cwd=folder.parent, code=1)
    assert (out.read_text(), done.stdout) == (straight.stdout, "")
    assert "9 abstain)" in done.stderr
    assert f"{kept} were scored before" in done.stderr
    assert len(set(kept_in(journal))) == len(kept_in(journal)) == 16
    assert [path.name for path in tmp_path.iterdir() if path != out] == [journal.name]  # nothing beside it is left


def test_a_full_disk_ends_the_run_and_keeps_what_is_scored(tmp_path: Path, here: Here) -> None:
    for number in range(8):
        (tmp_path / f"{number}.mp4").write_text("this is not a video\n" * 50)
    command = ("score", ".", "--out", "r.csv")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, hard))  # of any file: what a full disk is to the writer
    try:
        limited = here(*command, cwd=tmp_path, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "what is done is kept, run again" in limited.stderr
    assert len(limited.stderr.splitlines()) == 1
    kept = len(kept_in(tmp_path / "r.csv.journal"))
    assert 0 < kept < 8
    done = here(*command, cwd=tmp_path, code=1)
    assert f"{kept} were scored before" in done.stderr
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 9
    assert done.stdout == ""


def test_every_kind_of_table_and_of_list(folder: Path, tmp_path: Path, here: Here) -> None:
    write_wav(tmp_path / "a\nb.wav", speech(2.0))
    for name in ("0_clap.mp4", "0_text.mp4", "0_silent_film.mp4"):
        shutil.copy(folder / name, tmp_path / name)
    names = ["0_text.mp4", "a\nb.wav", "0_silent_film.mp4", "0_clap.mp4"]
    (tmp_path / "lists").mkdir()
    with (tmp_path / "lists" / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((f"../{name}", 1) for name in names)])
    seconds = ("--duration", "1")
    many = ("-", "--null", "--kaggle", "k.csv")
    done = here("score", *many, "--out", "r.csv", *seconds, cwd=tmp_path, code=1, given="\0".join(names))
    assert done.stderr.endswith("; the results are in r.csv\n")
    table = pd.read_csv(tmp_path / "r.csv")
    assert table["path"].tolist() == [name.replace("\n", "\\n") for name in names]
    assert "--kaggle: the label is 0.5 for 2 that abstained and 1 that failed" in done.stderr
    submission = (tmp_path / "k.csv").read_text().splitlines()
    assert submission[:2] == ["filename,label", "0_text.mp4,0.500000"]
    assert submission[3] == "0_silent_film.mp4,0.500000"
    assert float(submission[2].rpartition(",")[2]) == pytest.approx(table["fake"][1], abs=1e-4)
    assert table["fake"].isna().tolist() == [True, False, True, True]  # 0.5 stands in the submission only
    done = here("score", "--manifest", "lists/m.csv", "--out", "r.jsonl", "--json", *seconds, cwd=tmp_path, code=1)
    assert done.stdout == (tmp_path / "r.jsonl").read_text()
    results = [json.loads(line) for line in done.stdout.splitlines()]
    jsonschema.validate({"schema": "avdetect.results/2", "results": results}, json.loads(SCHEMA_FILE.read_text()))
    assert [r["path"] for r in results] == [f"lists/../{name}" for name in names]
    for name in ("fake", "video_fake", "audio_fake", "mismatch", "duration_seconds"):
        found = [r.get(name) for r in results]
        np.testing.assert_allclose(np.array(found, float), table[name].astype(float), atol=1e-4)
    done = here("score", "0_text.mp4", "0_clap.mp4", "--kaggle", "k2.csv", *seconds, cwd=tmp_path, code=1)
    assert len(done.stdout.splitlines()) == 3, "a submission holds no reason: the rows are printed"
    assert not list(tmp_path.glob(".*"))  # nothing is left over


def test_a_changed_file_is_scored_again_and_other_options_are_refused(folder: Path, tmp_path: Path, here: Here) -> None:
    for name in ("0_text.mp4", "1_text.mp4"):
        shutil.copy(folder / name, tmp_path / name)
    command = (".", "--out", "r.csv", "--duration", "0.5")
    here("score", *command, cwd=tmp_path, code=1)
    shutil.copy(folder / "0_tone.wav", tmp_path / "1_text.mp4")
    done = here("score", *command, cwd=tmp_path, code=1)
    assert "1 scored" in done.stderr
    assert "1 were scored before" in done.stderr
    before = (tmp_path / "r.csv").read_bytes()
    done = here("score", ".", "--out", "r.csv", "--duration", "0.6", cwd=tmp_path, code=2)
    assert "duration: 0.5 there, 0.6 now" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "r.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(([], "nothing to score"), (["-", "-"], "once only"), (["a.mp4", "--null"], "--null")),
        (["a.mp4", "--manifest", "m.csv"], "not both"),
        (["--manifest", "absent.csv"], "cannot read the manifest absent.csv: No such file"),
        (["--manifest", "no_path.csv"], "no column 'path'"),
        (["--manifest", "any.parquet"], "write its column `path` as CSV"),
        (["--manifest", "short.csv"], "line 3"),
        (["--manifest", "empty_cell.csv"], "no path"),
        (["--manifest", "none.csv"], "lists no file"),
        (["a.mp4", "b.mp4", "--out", "x.xlsx"], "must end in .csv or .jsonl"),
        (["a.mp4", "--out", "x.jsonl", "--excel"], "--excel is about a CSV file"),
        (["a.mp4", "--kaggle", "nowhere/x.csv"], "--kaggle nowhere/x.csv: it cannot be written there"),
        (["a.mp4", "--engine", "slurm"], "must be process or ray, got slurm"),
        (["a.mp4", "--ray-address", "auto"], "goes with --engine ray"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    manifests = {
        "no_path": "file\na\n",
        "short": "path,x\na,1\nb\n",
        "empty_cell": "path,x\na,1\n,2\n",
        "none": "path\n",
    }
    for name, text in manifests.items():
        Path(f"{name}.csv").write_text(text)
    assert run(["score", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not list(tmp_path.glob("*.journal"))
