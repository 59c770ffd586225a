"""The report of an evaluation: CSV, PNG and HTML that agree, hostile names, and the tables in documents."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from pathlib import Path

import documents
import numpy as np
import pandas as pd
import pytest
from documents import markdown, results_table, update_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.evaluation import plots, views
from avdetect.evaluation.report import TABLES, Results, write_report
from avdetect.evaluation.tables import measurements, missing_streams
from avdetect.evaluation.views import SCORES, View, interval, number
from avdetect.pooling import FEATURES

HOSTILE = '<script>alert("x")</script>|a&b'  # the name of a source


def scores_table(count: int = 96) -> pd.DataFrame:
    """Clips of two sources, speech and stills with scores that say something; some abstentions."""
    number, rng = np.arange(count), np.random.default_rng(0)
    fake = number % 2
    logit = rng.normal(fake * 1.2 - 0.6, 1)
    p = np.where(number < 2, np.nan, 1 / (1 + np.exp(-logit)))
    halves = pd.Series(np.where(number % 8 == 3, 0, fake)).astype("Int8")  # with two real halves of two clips
    columns = {
        **{"path": [f"/x/{i}.mp4" for i in number], "group": [f"g{i // 2}" for i in number]},
        **{"fake": pd.Series(fake).astype("Int8"), "video_fake": halves, "audio_fake": halves},
        **{"split": np.where(number < count // 2, "dev", "train"), "original": ""},
        **{"dataset": np.where(number % 4 < 2, HOSTILE, "plain"), "method": np.where(fake == 1, "swap", "")},
        **{"kind": np.where(number % 8 >= 6, "speech", "clip")},
        **{name: 1.0 if name.startswith("has_") else logit for name in FEATURES},
        **dict.fromkeys(("p_fake", "p_video_fake", "p_audio_fake", "p_mismatch", "masked:visual"), p),
        **{"ablation:all:max": p} | dict.fromkeys(("missing_visual", "missing_audio", "missing_sync", "error"), ""),
    }
    return pd.DataFrame(columns, index=number)


@pytest.fixture(scope="module")
def results() -> Results:
    scores = scores_table()
    parts = {"dev": (scores["split"] == "dev").to_numpy(), "all": np.ones(len(scores), bool)}
    frames = [measurements(scores[mask], 0.5, rounds=20).assign(part=name) for name, mask in parts.items()]
    audit = frames[1][frames[1]["table"] == "output"].assign(table="audit", score="duration")
    shifts = pd.DataFrame({"shift_frames": [-1, 0, 1], "n": 3, "recovered": [0.5, 1, 0.5], "mean_error_frames": 1.0})
    for name in ("recovered", "mean_error_frames"):
        shifts[f"{name}_low"], shifts[f"{name}_high"] = shifts[name] / 2, shifts[name]
    curve = pd.DataFrame({"condition": ["clean", "h264", "h264"], "severity": [np.nan, 18, 43], "auc": [0.9, 0.8, 0.6]})
    return Results(
        scores=scores,
        tables={
            "metrics": pd.concat([*frames, audit], ignore_index=True),
            "missing": missing_streams(scores.assign(has_sync=0.0, missing_sync="no face")),
            "sync_shifts": shifts,
            "sync": pd.DataFrame([{"subset": "shifted", "score": "offset", "n": 3, "recovered": 0.7}]),
            "robustness": curve.assign(subset="clips", score="p_fake", unit="crf", auc_low=0.5, auc_high=1.0),
            "localisation": pd.DataFrame([{"score": "visual", "method": "segments", "ap_50": 0.25}]),
        },
        parts=parts,
        about={"Bundle": "test (0123)", "Command": "avdetect evaluate <m>.csv"},
        summary={"parts": list(parts), "sync_measured_on": "dev", "out_of_fold": False},
        warnings=["The model does not beat its audit & more."],
        unmeasured=["Nothing else."],
    )


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(results, out)
    return out


def test_the_page_is_whole_and_loads_nothing_but_the_pictures_in_it(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    inside: list[str] = []
    for slash, tag in re.findall(r"<(/?)([a-z]+[0-9]?)", page):
        assert tag != "script"
        if slash:
            assert inside.pop() == tag
        elif tag not in {"meta", "img", "br", "link"}:
            inside.append(tag)
    assert not inside
    assert HOSTILE in html.unescape(re.sub("<[^>]*>", "", page))
    loads = re.findall(r"\s(?:src|href|srcset|data)\s*=\s*[\"']?([^\s\"'>]*)", page)
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in loads)
    assert {load for load in loads if load.startswith("#")} <= {f"#{i}" for i in re.findall(r' id="(s\d+)"', page)}
    assert "url(" not in page
    shown = {base64.b64decode(load.split(",")[1]) for load in loads if load.startswith("data:")}
    written = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert set(written.values()) == shown
    assert all(content.startswith(b"\x89PNG") for content in shown)
    parts = {f"{name}_{part}.png" for name in ("roc", "reliability") for part in ("dev", "all")}
    assert set(written) == parts | {"sync.png", "robustness.png"}


def test_the_page_says_what_the_csv_says_and_names_the_rest(folder: Path, results: Results) -> None:
    words = html.unescape(re.sub("<[^>]*>", "", (folder / "report.html").read_text()))
    metrics = pd.read_csv(folder / "metrics.csv")
    for row in metrics[metrics["table"].isin(["output", "kind", "method"])].to_dict("records"):
        few, bounds = " (too few)", f" [{row['auc_low']:.2f}–{row['auc_high']:.2f}]"
        assert f"{row['auc']:.3f}{few if row['note'] == 'too few' else bounds}" in words
    assert metrics.loc[metrics["note"] == "too few", "auc_low"].isna().all()
    assert all(f"{name}.csv: " in words and (folder / f"{name}.csv").exists() for name in TABLES)
    for sentence in (*results.warnings, *results.unmeasured, results.about["Command"]):
        assert sentence in words
    assert len(pd.read_csv(folder / "scores.csv")) == len(results.scores)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["warnings"], summary["not_measured"]) == (results.warnings, results.unmeasured)


def test_best_shortcut_and_worst_source_stand_beside_each_output(results: Results) -> None:
    metrics = results.tables["metrics"]
    table = views.view("outputs", metrics, "all")
    shortcut, worst = map(table.columns.index, ("best shortcut: balanced AUC", "worst source's false alarms"))
    for row, cells in zip(views.rows_of(metrics, "all", "output"), table.rows, strict=True):
        assert cells[shortcut] == f"duration: {interval(row, 'auc')}"
    assert {cells[shortcut] for cells in views.view("outputs", metrics, "dev").rows} == {"not measured"}
    told = {cells[:2]: cells[worst] for cells in table.rows}
    for cells in views.view("alarms", metrics, "all").rows:
        subset, _, source = cells[0].partition(": ")
        if source == "plain":  # a larger share of its real files than of the other source's
            assert told[subset, cells[1]].startswith(f"{cells[3]} (plain, ")
    few = metrics.assign(n=metrics["n"].mask(metrics["table"] == "false alarms", 9))
    assert {cells[worst] for cells in views.view("outputs", few, "all").rows} == {"–"}


def test_a_report_replaces_what_an_earlier_run_left(results: Results, folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(folder, tmp_path / "out")
    fewer = {name: results.tables[name] for name in ("metrics", "missing")}
    write_report(Results(results.scores, fewer, {"all": results.parts["all"]}, results.about, results.summary), out)
    kept = {"report.html", "summary.json", "scores.csv", "metrics.csv", "missing.csv"}
    assert {path.name for path in out.iterdir()} == kept | {"roc_all.png", "reliability_all.png"}
    assert "Robustness" not in (out / "report.html").read_text()


def test_one_class_alone_draws_no_curves(results: Results) -> None:
    reals = results.scores[results.scores["fake"] == 0]
    assert plots.of_outputs(reals, "all") == []
    assert plots.robustness(pd.DataFrame()) == []


def test_the_terminal_says_what_the_csv_says(results: Results) -> None:
    metrics = results.tables["metrics"]
    rows = [row for row in views.rows_of(metrics, "all", "output") if pd.notna(row["auc"])]
    for line, row in zip(views.in_words(metrics, "all"), rows, strict=True):
        assert line.startswith(f"{row['subset']}, {SCORES[row['score']]}: balanced AUC {interval(row, 'auc')}")
        assert f"pooled {row['auc_pooled']:.3f}, within sources {number(row['auc_within'])}" in line
    assert [number(value) for value in (0.12345, 1)] == ["0.123", "1.000"]
    assert {number(value) for value in (float("nan"), None, "", pd.NA)} == {"–"}
    assert interval({"auc": 0.5, "auc_low": 0.25, "auc_high": 0.75}, "auc") == "0.500 [0.25–0.75]"
    assert interval({"auc": 0.5, "auc_low": float("nan"), "auc_high": 0.75}, "auc") == "0.500"
    assert interval({}, "auc") == "–"


# -- documents

MARKED = "# Title\n\n<!-- results: {} -->\nold\n<!-- end results -->\ntail\n"


def test_documents_are_generated_once(folder: Path, tmp_path: Path) -> None:
    names = [*views.VIEWS, "outputs all"]  # without a part: dev, which the report shows first
    document, other = tmp_path / "README.md", tmp_path / "CARD.md"
    labelled = "<!-- results of held-out: readme -->\nold\n<!-- end results -->\n"  # another evaluation's
    document.write_text("\n".join(map(MARKED.format, names)) + labelled, encoding="utf-8")
    other.write_text("no markers\n")
    assert update_documents(folder, [document, other]) == [document]
    text = document.read_text()
    assert (text.count("old\n"), labelled in text) == (1, True)
    for name in names:
        table = results_table(folder, *name.split())
        assert f"<!-- results: {name} -->\n{table}<!-- end results -->\ntail\n" in text
    assert results_table(folder, "outputs") != results_table(folder, "outputs", "all")
    assert update_documents(folder, [document, other]) == []
    assert document.read_text() == text
    update_documents(folder, [document], label="held-out")
    assert document.read_text() == text.replace("old\n", results_table(folder, "readme"))


def test_a_bad_marker_changes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "a.md"
    good.write_text(MARKED.format("outputs"))
    begin, end = "<!-- results: outputs -->\n", "<!-- end results -->\n"
    for text, message in {
        MARKED.format("nonsense"): r"a\.md:3: there is no results table 'nonsense'; known ones: readme, modalities",
        MARKED.format("outputs test"): "did not measure the part 'test'",
        begin: r"a\.md:1: the results that begin here have no",
        begin * 2 + end: r"a\.md:1: the results that begin here have no",
        end: r"a\.md:1: .* without a",
    }.items():
        bad.write_text(text)
        assert documents.main(["--out", str(folder), str(good), str(bad)]) == 1
        assert re.search(message, capsys.readouterr().err)
        assert (good.read_text(), bad.read_text()) == (MARKED.format("outputs"), text)
    assert documents.main(["--out", str(folder), str(good)]) == 0
    assert results_table(folder, "outputs") in good.read_text()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), min_size=2, max_size=2), max_size=4))
def test_no_cell_breaks_a_markdown_table(rows: list[list[str]]) -> None:
    lines = markdown(View("", "", ("a", "b"), tuple(map(tuple, rows)))).splitlines()
    assert len(lines) == 2 + len(rows)
    assert {len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in lines} == {3}
