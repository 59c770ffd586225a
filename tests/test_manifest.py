"""The manifest: what is wrong is named by row, no group leaks, files round-trip, its digest is the data's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avdetect.datasets.manifest import (
    COLUMNS,
    LABELS,
    OPTIONAL,
    digest,
    leaking_originals,
    read_manifest,
    validate,
    write_manifest,
)
from avdetect.errors import ManifestError


def table(**columns: Any) -> pd.DataFrame:
    base = {
        "path": ["a.mp4", "b.mp4", "c.wav", "d.jpg"],
        "fake": ["0", "1", "1", "1"],
        "video_fake": ["0", "1", "", "1"],
        "audio_fake": ["0", "0", "1", ""],
        "group": ["x", "x", "y", "z"],
        "split": ["train", "train", "dev", "train"],
        "dataset": ["one", "one", "two", "three"],
        "method": ["", "swap", "tts", "gan"],
        "original": ["", "a.mp4", "", "elsewhere/d.png"],
        "fake_segments": ["", "[[0.5, 1.5]]", "[[0, 1], [2.25, 3]]", ""],
    }
    return pd.DataFrame(base | columns)


SPANS = [(), ((0.5, 1.5),), ((0.0, 1.0), (2.25, 3.0)), ()]  # of `table`, as they are in memory


def test_a_good_table_gets_typed_columns() -> None:
    given = table(kind=["a", "b", "c", "d"])
    before = given.copy()
    out = validate(given)
    pd.testing.assert_frame_equal(given, before)
    pd.testing.assert_frame_equal(validate(out), out)
    assert [str(out[c].dtype) for c in LABELS] == ["Int8"] * 3
    assert out["audio_fake"].fillna(-1).tolist() == [0, 0, 1, -1]
    assert out["fake_segments"].tolist() == SPANS
    assert out["kind"].tolist() == ["a", "b", "c", "d"]
    bare = validate(table().drop(columns=list(OPTIONAL)))
    assert tuple(bare.columns) == COLUMNS
    assert set(bare["original"]) == {""}
    assert validate(table(fake=["0", "", "", ""]))["fake"].tolist() == [0, 1, 1, 1]  # a fake face makes a fake file
    validate(table(fake=["1"] * 4, video_fake=["0"] * 4, audio_fake=["0"] * 4))  # another's voice: a fake of reals


def test_labels_in_any_spelling_of_numbers_and_unknown_ones() -> None:
    for labels in ([0, 1, 1, 1], [0.0, 1.0, 1.0, 1.0], [False, True, True, True], ["0", "1.0", 1, 1.0]):
        assert validate(table(fake=labels))["fake"].tolist() == [0, 1, 1, 1]
    for unknown in ([0, None, np.nan, ""], [0, pd.NA, "", None]):
        out = validate(table(**dict.fromkeys(LABELS, unknown), original=[""] * 4, fake_segments=[""] * 4))
        for label in LABELS:
            assert out[label].isna().tolist() == [False, True, True, True]


def at(row: int, value: object, column: str) -> dict[str, pd.Series]:
    cells = table()[column].astype(object)
    cells[row] = value
    return {column: cells}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((at(2, v, "fake"), f"row 2: fake is .*{v}") for v in ("2", "-1", "nan", 0.5, float("inf"))),
        ({"own_voice": ["2", "", "", ""]}, "row 0: own_voice is '2'"),
        (at(2, "fake", "audio_fake"), "row 2: audio_fake is 'fake'; it must be 0, 1 or empty"),
        (at(0, "1", "video_fake"), "row 0: fake is 0 although"),
        (at(0, "b.mp4", "original"), "row 0: fake is 0 but it names an original"),
        *((at(3, v, c), f"row 3: {c} is empty") for c in ("path", "group", "split", "dataset") for v in ("", None)),
        (at(2, "Dev", "split"), r"row 2: split is 'Dev'.*train or dev"),
        (at(2, "b.mp4", "path"), r"b\.mp4 stands in the manifest twice"),
        (at(0, "a\udcff.mp4", "path"), "path holds text that is not Unicode"),
        (at(1, "dev", "split"), "'x' stands in more than one split"),
    ],
)
def test_what_is_wrong_is_named(change: dict, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        validate(table(**change))
    if "'x'" in message or "split is empty" in message:
        validate(table(**change), check_splits=False)  # a listing on its way to its splits
    for column in [c for c in COLUMNS if c not in OPTIONAL]:
        with pytest.raises(ManifestError, match=f"lacks the column '{column}'"):
            validate(table().drop(columns=column))


def test_an_original_in_another_split_is_a_leak() -> None:
    apart = table(group=["x", "w", "y", "z"], split=["train", "dev", "dev", "train"])
    with pytest.raises(ManifestError, match=r"b\.mp4 stands in dev, its original a\.mp4 in train.*\(1 such"):
        validate(apart)
    leaks = leaking_originals(validate(apart, check_splits=False))[["path", "split", "original", "original_split"]]
    assert leaks.to_numpy().tolist() == [["b.mp4", "dev", "a.mp4", "train"]]
    validate(apart.assign(original=["", "elsewhere.mp4", "", ""]))


def segments(*cells: object, **columns: list) -> pd.DataFrame:
    """Fakes with these segments."""
    count = len(cells)
    same = {"fake": [1] * count, "video_fake": "", "audio_fake": "", "group": "g", "split": "train", "dataset": "d"}
    rows = {"path": [f"{i}.mp4" for i in range(count)], "method": "", "original": ""} | same | columns
    return pd.DataFrame(rows).assign(fake_segments=pd.Series(list(cells), dtype=object))


SPAN_FORMS = [
    *("[[0, 1.5], [2, 3]]", " [ [0.0,1.5],[2e0,3] ] ", [[0, 1.5], [2, 3]], ((0.0, 1.5), (2.0, 3.0))),
    *(np.array([[0, 1.5], [2, 3]]), [np.array([0, 1.5]), (2, np.float32(3))]),
]


def test_segments_in_any_form_become_tuples_of_floats() -> None:
    for cell in SPAN_FORMS:
        out = validate(segments("", cell, None, cell))["fake_segments"]
        assert out.tolist() == [(), ((0.0, 1.5), (2.0, 3.0))] * 2
        assert all(type(number) is float for pair in out.iloc[1] for number in pair)
    for nothing in ("", None, pd.NA, np.nan, "[]", [], (), np.zeros((0, 2))):
        assert validate(segments(nothing, "[[1, 2]]"))["fake_segments"].tolist() == [(), ((1.0, 2.0),)]
        assert validate(segments(nothing, fake=[0]))["fake_segments"].tolist() == [()]


BAD_SEGMENTS = [
    *("[[1, 1]]", "[[2, 1]]", "[[-1, 1]]", "[[0, NaN]]", "[[0, Infinity]]", "[[0, 1e999]]", "[[1, 2, 3]]", "[[1]]"),
    *("[1, 2]", "[[]]", "{}", '{"a": [1, 2]}', '[["0", "1"]]', "[[true, 2]]", "[[null, 2]]", "1-2", "[[1, 2]", "null"),
    *("[[1, 2]], [[3, 4]]", "[[1, 2]]]", "  ", '"[[1, 2]]"', "[" * 100_000, '[{"a": 1, "b": 2}]', "[[0,1]],[[2,3]"),
    *([[1, 0]], [["a", "b"]], [[None, 1]], [1, 2], [[1, np.nan]], [[1, 2], 3], 5, 0.5, True, [[True, 2]], {"a": 1}),
    *(["ab"], [[10**400, 10**401]], [object()]),
]


def test_bad_segments_are_named_with_their_row() -> None:
    for cell in BAD_SEGMENTS:
        with pytest.raises(ManifestError, match="row 2: fake_segments is"):
            validate(segments("[[1, 2]]", None, cell, "[[1, 2]]", [[3, 4]]))


def test_what_is_not_fake_has_no_segments() -> None:
    for label in LABELS:
        column = f"{label}_segments"
        given = segments("", "").assign(**{column: ["[[1, 2]]", ""]})
        assert validate(given.assign(**{label: [1, 0]}))[column].tolist() == [((1.0, 2.0),), ()]
        for other in (0, None):
            with pytest.raises(ManifestError, match=f"row 0: {column} is not empty although {label} is not 1"):
                validate(given.assign(**{label: [other, 0]}))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_relative_paths_are_resolved_against_the_manifest_and_digits_stay_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    texts = {
        "group": ["007", "007", "1e3", "08"],
        "dataset": ["1", "1", "NA", "null"],
        "method": ["", "01", "nan", "2"],
    }
    given = table(path=["a.mp4", "sub/b.mp4", "/abs/c.wav", "../d.jpg"], **texts)
    if suffix == ".csv":
        given.to_csv(path, index=False)
    else:
        given.assign(fake_segments=[[], [[0.5, 1.5]], [[0.0, 1.0], [2.25, 3.0]], None]).to_parquet(path)
    out = read_manifest(path)
    places = [tmp_path / "a.mp4", tmp_path / "sub" / "b.mp4", Path("/abs/c.wav"), tmp_path.parent / "d.jpg"]
    assert out["path"].tolist() == [str(place) for place in places]
    assert out["audio_fake"].isna().tolist() == [False, False, False, True]
    assert out["original"].tolist() == ["", str(tmp_path / "a.mp4"), "", str(tmp_path / "elsewhere" / "d.png")]
    assert out["fake_segments"].tolist() == SPANS
    assert out[list(texts)].to_dict("list") == texts


def test_a_path_means_what_the_file_system_means(tmp_path: Path) -> None:
    (tmp_path / "far" / "place").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "place")
    meanings = {"x/../a.mp4": "a.mp4", "./a.mp4": "a.mp4", "x//a.mp4": "x/a.mp4", ".hidden/a..mp4": ".hidden/a..mp4"}
    meanings["link/../a.mp4"] = "far/a.mp4"  # where the file system would go, not where the text would
    for written, meant in meanings.items():
        table(**at(0, written, "path")).to_csv(tmp_path / "m.csv", index=False)
        assert read_manifest(tmp_path / "m.csv")["path"].iloc[0] == str(tmp_path / meant)
        table(path=[written, meant, "c.wav", "d.jpg"]).to_csv(tmp_path / "m.csv", index=False)
        with pytest.raises(ManifestError, match="twice"):  # two spellings of one path
            read_manifest(tmp_path / "m.csv")


def test_files_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    csv, parquet = tmp_path / "m.csv", tmp_path / "m.parquet"
    for content in (b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3,4,5,6', None):
        for path in (csv, parquet):
            path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
            with pytest.raises(ManifestError, match=r"cannot read|lacks the column"):
                read_manifest(path)
    table(**at(0, "x\0/../a.mp4", "path")).to_parquet(parquet)
    with pytest.raises(ManifestError, match="impossible path"):
        read_manifest(parquet)
    csv.write_text("path,fake\na.mp4,1\n")
    with pytest.raises(ManifestError, match=r"lacks the column 'video_fake'.*avdetect prepare csv .*m\.csv"):
        read_manifest(csv)
    csv.write_text(f"{','.join(COLUMNS)}\n" + "a.mp4,1,1,1,g,train,d,m,,,,surplus\n" * 2)
    with pytest.raises(ManifestError, match="more cells than its header"):
        read_manifest(csv)


# Any file name; what lies between the slashes never is . or ..


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
NAMES = TEXT.map(lambda text: f"n{text.strip('/')}/n{text.replace('/', '_')}")  # no part of it is . or ..
SPANS_IN_SECONDS = st.lists(st.tuples(st.floats(0, 1e3), st.floats(1e3, 1e6, exclude_min=True)), max_size=3).map(tuple)


@st.composite
def wild_rows(draw: st.DrawFn) -> list[dict]:
    rows = []
    for number in range(draw(st.integers(1, 4))):
        fake = draw(st.sampled_from([0, 1, None]))
        row: dict = {"path": f"{number}{draw(NAMES)}", "fake": fake, "video_fake": draw(st.sampled_from([0, None]))}
        row |= {"group": f"{draw(TEXT)}{number}", "split": draw(st.sampled_from(["train", "dev", "test"]))}
        row |= {"dataset": draw(TEXT), "method": draw(st.just("") | TEXT), "note": f"note {draw(TEXT)}"}
        row["original"] = "" if fake == 0 else draw(st.just("") | NAMES)
        row["fake_segments"] = draw(SPANS_IN_SECONDS) if fake else ()
        rows.append(row)
    return rows


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=wild_rows())
def test_what_is_written_is_read(tmp_path: Path, rows: list[dict]) -> None:
    """Wild names, every second of them under the manifest's folder; and the folder may move."""
    records = []
    for index, row in enumerate(rows):
        home = str(tmp_path) if index % 2 else "/elsewhere"
        places = {"path": f"{home}/{row['path']}", "original": row["original"] and f"{home}/o/{row['original']}"}
        records.append(row | places | {"audio_fake": pd.NA})
    given = validate(pd.DataFrame(records))
    moved = tmp_path / "moved"
    moved.mkdir(exist_ok=True)
    for name in ("m.csv", "m.parquet"):
        write_manifest(given, tmp_path / name)
        out = read_manifest(tmp_path / name)
        pd.testing.assert_frame_equal(out, given)
        assert digest(out) == digest(given)
        (tmp_path / name).rename(moved / name)
        paths = given["path"].str.replace(f"{tmp_path}/", f"{moved}/", regex=False)
        assert read_manifest(moved / name)["path"].tolist() == paths.tolist()


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    write_manifest(table(path=[f"{tmp_path}/a.mp4", "b", "c", "d"]), tmp_path / "m.parquet")
    before = (tmp_path / "m.parquet").read_bytes()
    with pytest.raises(ManifestError, match="fake is"):
        write_manifest(table(fake=["no"] * 4), tmp_path / "m.parquet")
    assert (tmp_path / "m.parquet").read_bytes() == before
    with pytest.raises(ManifestError, match=r"\.csv or \.parquet"):
        write_manifest(table(), tmp_path / "m.json")
    (tmp_path / "taken.csv").mkdir()
    for place in (tmp_path / "none" / "m.csv", tmp_path / "taken.csv"):
        with pytest.raises(ManifestError, match="cannot write"):
            write_manifest(table(), place)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.parquet", "taken.csv"]


def test_the_digest_is_written_down() -> None:
    """It stands in bundles: it must not change with a library."""
    assert digest(validate(table())) == "9c27a9164ae759fb"


def test_the_digest_knows_neither_row_order_nor_folder() -> None:
    plain = validate(table())
    moved = validate(table(path=["/x/a.mp4", "/y/b.mp4", "c.wav", "z/d.jpg"]))
    assert digest(plain) == digest(moved) == digest(plain.iloc[::-1]) == digest(plain.assign(kind="more"))
    twice = validate(table(path=["real/a.mp4", "fake/a.mp4", "c.wav", "fake/c.wav"]))  # equal names in two folders
    orders = [twice.iloc[list(order)] for order in ((0, 1, 2, 3), (1, 0, 3, 2), (3, 1, 2, 0))]
    assert len({digest(t) for t in orders}) == 1


def test_no_cell_can_pass_for_two() -> None:
    texts = ["a", "b", "a\x1fb", "a\nb", "\\", "a\\", '"a', 'a", "b', "\x1f", ""]
    given = validate(table()).iloc[1:2]
    tables = [given.assign(dataset=x, method=y) for x in texts for y in texts]
    assert len({digest(t) for t in tables}) == len(tables)


def test_the_digest_knows_everything_else() -> None:
    changes = [
        at(3, "e.jpg", "path"),
        at(0, "", "fake"),
        {"video_fake": ["0", "", "", "1"]},
        at(1, "1", "audio_fake"),
        at(3, "zz", "group"),
        at(3, "dev", "split"),
        at(3, "four", "dataset"),
        at(2, "vocoder", "method"),
        at(1, "b.mp4", "original"),
        at(2, "[[0, 1], [2.25, 3.5]]", "fake_segments"),
        at(1, "", "fake_segments"),
        {"video_fake_segments": ["", "[[0.5, 1.5]]", "", ""]},
        {"audio_fake_segments": ["", "", "[[0.5, 1.5]]", ""]},
    ]
    assert len({digest(validate(table(**change))) for change in ({}, *changes)}) == 1 + len(changes)
