"""The manifest: what is wrong is named by row, no group leaks, files round-trip, its digest is the data's identity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.manifest import (
    COLUMNS,
    LABELS,
    OPTIONAL,
    assign_splits,
    digest,
    folds,
    leaking_originals,
    read_manifest,
    validate,
    write_manifest,
)
from avdetect.datasets.splits import check_folds, media, origins
from avdetect.errors import ManifestError


def table(**columns: list) -> pd.DataFrame:
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


# -- validation


def test_a_good_table_gets_typed_labels() -> None:
    out = validate(table())
    assert [str(out[c].dtype) for c in LABELS] == ["Int8"] * 3
    assert out["video_fake"].tolist()[:2] == [0, 1]
    assert out["video_fake"].isna().tolist() == [False, False, True, False]
    assert out["audio_fake"].isna().tolist() == [False, False, False, True]
    pd.testing.assert_frame_equal(validate(out), out)


def test_the_table_that_was_given_stays_as_it_is() -> None:
    given = table()
    before = given.copy()
    validate(given)
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 1, 1], [0.0, 1.0, 1.0, 1.0], [False, True, True, True], ["0", "1.0", "1", "1"], [0, 1, 1, 1.0]],
)
def test_labels_in_any_spelling_of_numbers(labels: list) -> None:
    out = validate(table(fake=labels))
    assert out["fake"].tolist() == [0, 1, 1, 1]
    assert str(out["fake"].dtype) == "Int8"


@pytest.mark.parametrize("unknown", [[0, None, np.nan, ""], [0, pd.NA, "", None]])
def test_unknown_labels_stay_unknown(unknown: list) -> None:
    bare = {"video_fake": unknown, "audio_fake": unknown, "original": [""] * 4, "fake_segments": [""] * 4}
    out = validate(table(fake=unknown, **bare))
    for label in LABELS:
        assert out[label].isna().tolist() == [False, True, True, True]


def test_a_file_with_a_fake_part_is_fake() -> None:
    out = validate(table(fake=["0", "", "", ""]))
    assert out["fake"].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("label", ["2", "-1", "0.5", "fake", "nan", "unknown", "inf", 2, 0.5, -1, float("inf")])
@pytest.mark.parametrize("column", LABELS)
def test_an_unknown_label_is_named_with_its_row(column: str, label: object) -> None:
    values: list = ["0", "1", label, "1"]
    with pytest.raises(ManifestError, match=rf"row 2: {column} is .*{label}"):
        validate(table(**{column: values}))


def test_original_and_segments_may_be_absent() -> None:
    out = validate(table().drop(columns=list(OPTIONAL)))
    assert out["original"].tolist() == [""] * 4
    assert out["fake_segments"].tolist() == [()] * 4
    assert tuple(out.columns) == COLUMNS


@pytest.mark.parametrize("column", [c for c in COLUMNS if c not in OPTIONAL])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ManifestError, match=f"lacks the column '{column}'"):
        validate(table().drop(columns=column))


@pytest.mark.parametrize("empty", ["", None, np.nan])
@pytest.mark.parametrize("column", ["path", "group", "split", "dataset"])
def test_an_empty_cell_is_named(column: str, empty: object) -> None:
    given = table()
    given[column] = given[column].astype(object)
    given.loc[3, column] = empty
    with pytest.raises(ManifestError, match=f"row 3: {column} is empty"):
        validate(given)
    if column == "split":
        assert validate(given, check_splits=False)["split"].tolist() == ["train", "train", "dev", ""]


def test_a_group_in_both_splits_is_a_leak() -> None:
    with pytest.raises(ManifestError, match="'x' stands in more than one split"):
        validate(table(split=["train", "dev", "dev", "train"]))


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ManifestError, match=r"row 2: split is 'Dev'.*train or dev"):
        validate(table(split=["train", "train", "Dev", "train"]))


def test_a_path_twice_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"b\.mp4 stands in the manifest twice"):
        validate(table(path=["a.mp4", "b.mp4", "b.mp4", "d.jpg"]))


def test_an_original_in_another_split_is_a_leak() -> None:
    apart = table(group=["x", "w", "y", "z"], split=["train", "dev", "dev", "train"])
    with pytest.raises(ManifestError, match=r"b\.mp4 stands in dev, its original a\.mp4 in train.*\(1 such"):
        validate(apart)
    assert leaking_originals(validate(apart, check_splits=False)).to_numpy().tolist() == [
        ["b.mp4", "dev", "a.mp4", "train"]
    ]
    validate(apart.assign(original=["", "elsewhere.mp4", "", ""]))


def test_only_fakes_have_an_original() -> None:
    with pytest.raises(ManifestError, match="row 0: fake is 0 but it names an original"):
        validate(table(original=["b.mp4", "a.mp4", "", ""]))


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ManifestError, match="path holds text that is not Unicode"):
        validate(table().assign(path=pd.Series(["a\udcff.mp4", "b.mp4", "c.wav", "d.jpg"], dtype=object)))


@pytest.mark.parametrize("column", ["video_fake", "audio_fake"])
def test_labels_must_not_contradict_each_other(column: str) -> None:
    with pytest.raises(ManifestError, match="row 0: fake is 0"):
        validate(table(**{column: ["1", "1", "", ""]}))
    # A real face under another person's real voice is fake as a whole.
    validate(table(fake=["1", "1", "1", "1"], video_fake=["0"] * 4, audio_fake=["0"] * 4))


def test_other_columns_stay() -> None:
    assert validate(table(kind=["a", "b", "c", "d"]))["kind"].tolist() == ["a", "b", "c", "d"]


# -- segments


def segments(*cells: object, label: int = 1) -> pd.DataFrame:
    count = len(cells)
    same = {"fake": [label] * count, "video_fake": [""] * count, "audio_fake": [""] * count, "group": ["g"] * count}
    same |= {"split": ["train"] * count, "dataset": ["d"] * count, "method": [""] * count, "original": [""] * count}
    column = pd.Series([None] * count, dtype=object)
    for index, cell in enumerate(cells):
        column[index] = cell
    return pd.DataFrame({"path": [f"{i}.mp4" for i in range(count)], **same}).assign(fake_segments=column)


@pytest.mark.parametrize(
    "cell",
    [
        "[[0, 1.5], [2, 3]]",
        " [ [0.0,1.5],[2e0,3] ] ",
        [[0, 1.5], [2, 3]],
        ((0.0, 1.5), (2.0, 3.0)),
        np.array([[0, 1.5], [2, 3]]),
        [np.array([0, 1.5]), (2, np.float32(3))],
    ],
)
def test_segments_in_any_form_become_tuples_of_floats(cell: object) -> None:
    for where, cells in ((0, [cell]), (1, [cell, cell]), (1, ["", cell, None, "[[4, 5]]"])):
        out = validate(segments(*cells))["fake_segments"]
        assert out.iloc[where] == ((0.0, 1.5), (2.0, 3.0))
        assert all(type(number) is float for pair in out.iloc[where] for number in pair)


@pytest.mark.parametrize("cell", ["", None, pd.NA, np.nan, "[]", [], (), np.zeros((0, 2))])
def test_no_segments(cell: object) -> None:
    assert validate(segments(cell, "[[1, 2]]"))["fake_segments"].tolist() == [(), ((1.0, 2.0),)]
    assert validate(segments(cell, label=0))["fake_segments"].tolist() == [()]


BAD_SEGMENTS = [
    *("[[1, 1]]", "[[2, 1]]", "[[-1, 1]]", "[[0, NaN]]", "[[0, Infinity]]", "[[0, 1e999]]", "[[1, 2, 3]]", "[[1]]"),
    *("[1, 2]", "[[]]", "{}", '{"a": [1, 2]}', '[["0", "1"]]', "[[true, 2]]", "[[null, 2]]", "1-2", "[[1, 2]", "null"),
    *("[[1, 2]], [[3, 4]]", "[[1, 2]]]", "  ", '"[[1, 2]]"', "[" * 100_000, '["ab"]', '[{"a": 1, "b": 2}]'),
    *([[1, 0]], [["a", "b"]], [[None, 1]], [1, 2], [[1, np.nan]], [[1, 2], 3], 5, 0.5, True, [[True, 2]], {"a": 1}),
    *(["ab"], [[10**400, 10**401]]),
]


@pytest.mark.parametrize("cell", BAD_SEGMENTS, ids=lambda c: repr(c)[:30])
def test_bad_segments_are_named_with_their_row(cell: object) -> None:
    for cells in ((cell,), ("[[1, 2]]", None, cell, "[[1, 2]]", [[3, 4]])):
        with pytest.raises(ManifestError, match=rf"row {cells.index(cell)}: fake_segments is"):
            validate(segments(*cells))


@pytest.mark.parametrize("texts", [["[[0,1]],[[2,3]", "[4,5]]"], ["[[0,1]", "[2,3]]", "[],[]"], ["[[0,1]],[]", "["]])
def test_no_text_of_segments_ends_in_the_next_row(texts: list[str]) -> None:
    with pytest.raises(ManifestError, match="row 0: fake_segments"):
        validate(segments(*texts))


@pytest.mark.parametrize("label", [0, None])
def test_only_fakes_have_segments(label: int | None) -> None:
    with pytest.raises(ManifestError, match="row 1: fake_segments is not empty although fake is not 1"):
        validate(segments("", "[[1, 2]]").assign(fake=[label, label]))


@pytest.mark.parametrize(
    ("column", "label"), [("video_fake_segments", "video_fake"), ("audio_fake_segments", "audio_fake")]
)
def test_a_part_that_is_not_fake_has_no_segments(column: str, label: str) -> None:
    given = segments("[[1, 2]]", "[[1, 2]]").assign(**{label: [1, 0], column: ["[[1, 2]]", ""]})
    assert validate(given)[column].tolist() == [((1.0, 2.0),), ()]
    with pytest.raises(ManifestError, match=f"row 1: {column} is not empty although {label} is not 1"):
        validate(given.assign(**{column: ["", "[[1, 2]]"]}))


# -- files


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_relative_paths_are_resolved_against_the_manifest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    given = table(path=["a.mp4", "sub/b.mp4", "/abs/c.wav", "../d.jpg"])
    if suffix == ".csv":
        given.to_csv(path, index=False)
    else:
        given.to_parquet(path)
    out = read_manifest(path)
    assert out["path"].tolist() == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "sub" / "b.mp4"),
        "/abs/c.wav",
        str(tmp_path.parent / "d.jpg"),
    ]
    assert out["audio_fake"].isna().tolist() == [False, False, False, True]
    assert out["method"].tolist() == ["", "swap", "tts", "gan"]
    assert out["original"].tolist() == ["", str(tmp_path / "a.mp4"), "", str(tmp_path / "elsewhere" / "d.png")]
    assert out["fake_segments"].tolist() == [(), ((0.5, 1.5),), ((0.0, 1.0), (2.25, 3.0)), ()]


def test_a_parquet_file_may_hold_lists_of_lists(tmp_path: Path) -> None:
    cells = [[], [[0.5, 1.5]], [[0.0, 1.0], [2.25, 3.0]], None]
    table().assign(fake_segments=cells).to_parquet(tmp_path / "m.parquet")
    out = read_manifest(tmp_path / "m.parquet")
    assert out["fake_segments"].tolist() == [(), ((0.5, 1.5),), ((0.0, 1.0), (2.25, 3.0)), ()]


def test_two_spellings_of_one_path_are_one_file(tmp_path: Path) -> None:
    table(path=["a.mp4", "./a.mp4", "c.wav", "d.jpg"]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match="twice"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("x/../a.mp4", "a.mp4"),
        ("./a.mp4", "a.mp4"),
        ("x//a.mp4", "x/a.mp4"),
        (".hidden/a..mp4", ".hidden/a..mp4"),
        ("link/../a.mp4", "far/a.mp4"),  # where the file system would go, not where the text would
    ],
)
def test_a_path_means_what_the_file_system_means(tmp_path: Path, written: str, meant: str) -> None:
    (tmp_path / "far" / "place").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "place")
    table(path=[written, "b.mp4", "c.wav", "d.jpg"]).to_csv(tmp_path / "m.csv", index=False)
    assert read_manifest(tmp_path / "m.csv")["path"].iloc[0] == str(tmp_path / meant)


def test_an_impossible_path_is_refused(tmp_path: Path) -> None:
    table(path=["x\0/../a.mp4", "b.mp4", "c.wav", "d.jpg"]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="impossible path"):
        read_manifest(tmp_path / "m.parquet")


def test_a_list_without_labels_is_told_of_the_tool(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,fake\na.mp4,1\n")
    with pytest.raises(ManifestError, match=r"lacks the column 'video_fake'.*avdetect prepare csv .*m\.csv"):
        read_manifest(tmp_path / "m.csv")


def test_rows_that_are_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"{','.join(COLUMNS)}\n" + "a.mp4,1,1,1,g,train,d,m,,,,surplus\n" * 2)
    with pytest.raises(ManifestError, match="more cells than its header"):
        read_manifest(tmp_path / "m.csv")


def test_names_of_digits_stay_text(tmp_path: Path) -> None:
    given = table(group=["007", "007", "1e3", "0x1"], dataset=["1", "1", "NA", "null"], method=["", "01", "nan", "2"])
    for name in ("m.csv", "m.parquet"):
        write_manifest(given, tmp_path / name)
        out = read_manifest(tmp_path / name)
        for column in ("group", "dataset", "method"):
            assert out[column].tolist() == given[column].tolist()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3,4,5,6'])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "none.csv")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
# Any file name; what lies between the slashes never is . or ..
NAMES = st.lists(TEXT.map(lambda t: f"n{t.replace('/', '_')}"), min_size=1, max_size=3).map("/".join)
TIMES = st.floats(0, 1e6, allow_nan=False)
SEGMENTS = st.lists(st.tuples(TIMES, TIMES).filter(lambda p: p[0] < p[1]), max_size=3).map(tuple)
ROWS = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from([0, 1, None]),
        st.sampled_from([0, None]),
        TEXT,
        st.sampled_from(["train", "dev", "test"]),
        TEXT,
        st.one_of(st.just(""), TEXT),
        st.one_of(st.just(""), NAMES),
        SEGMENTS,
        TEXT,
    ),
    min_size=1,
    max_size=6,
    unique_by=(lambda row: row[0], lambda row: row[3]),
)


def wild(rows: list, folder: Path) -> pd.DataFrame:
    """A valid table of wild names; every second one lies under `folder`."""
    records = []
    for index, (path, fake, part, group, split, dataset, method, original, spans, note) in enumerate(rows):
        home = str(folder) if index % 2 else "/elsewhere"
        records.append(
            {
                "path": f"{home}/{path}",
                "fake": fake,
                "video_fake": part,
                "audio_fake": pd.NA,
                "group": group,
                "split": split,
                "dataset": dataset,
                "method": method,
                "original": f"{home}/o/{original}" if original and fake != 0 else "",
                "fake_segments": spans if fake == 1 else (),
                "note": f"note {note}",
            }
        )
    return validate(pd.DataFrame(records))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@settings(deadline=None, max_examples=20)
@given(rows=ROWS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list) -> None:
    folder = tmp_path_factory.mktemp("m")
    given = wild(rows, folder)
    write_manifest(given, folder / f"m{suffix}")
    out = read_manifest(folder / f"m{suffix}")
    pd.testing.assert_frame_equal(out, given)
    assert digest(out) == digest(given)
    assert [p.name for p in folder.iterdir()] == [f"m{suffix}"]


def test_a_manifest_moves_with_its_folder(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    given = table(path=[f"{home}/sub/a.mp4", f"{home}/b.mp4", f"{home}2/c.wav", "/abs/d.jpg"])
    given["original"] = ["", f"{home}/sub/a.mp4", "", ""]
    write_manifest(given, home / "m.csv")
    home.rename(away)
    out = read_manifest(away / "m.csv")
    assert out["path"].tolist() == [f"{away}/sub/a.mp4", f"{away}/b.mp4", f"{home}2/c.wav", "/abs/d.jpg"]
    assert out["original"].tolist() == ["", f"{away}/sub/a.mp4", "", ""]


def test_an_invalid_table_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(table(), path)
    before = path.read_bytes()
    with pytest.raises(ManifestError, match="split"):
        write_manifest(table(split=["train", "dev", "dev", "train"]), path)
    with pytest.raises(ManifestError, match="cannot write"):
        write_manifest(table(mixed=["a", 1, None, [2]]), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.parquet"]
    with pytest.raises(ManifestError, match=r"\.csv or \.parquet"):
        write_manifest(table(), tmp_path / "m.json")
    with pytest.raises(ManifestError, match="cannot write"):
        write_manifest(table(), tmp_path / "none" / "m.csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(ManifestError, match="cannot write"):
        write_manifest(table(), tmp_path / "taken.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.parquet", "taken.csv"]


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.text(max_size=8), st.lists(st.integers())
)


@settings(deadline=None, max_examples=25)
@given(columns=st.fixed_dictionaries({c: st.lists(CELLS, min_size=3, max_size=3) for c in COLUMNS}))
def test_wild_tables_are_typed_or_refused(columns: dict) -> None:
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    try:
        out = validate(frame, check_splits=False)
    except ManifestError:
        return
    pd.testing.assert_frame_equal(validate(out, check_splits=False), out)
    assert [str(out[c].dtype) for c in LABELS] == ["Int8"] * 3


@settings(deadline=None, max_examples=25)
@given(text=st.one_of(st.text(max_size=30), st.text(st.sampled_from("[],. 0123e-NanITful"), max_size=30)))
def test_any_text_of_segments_is_read_or_refused(text: str) -> None:
    try:
        out = validate(segments("[[1, 2]]", text))["fake_segments"]
    except ManifestError:
        return
    assert out.iloc[0] == ((1.0, 2.0),)
    assert out.iloc[1] == tuple(tuple(float(n) for n in pair) for pair in (json.loads(text) if text else []))


# -- identity and folds


def test_the_digest_knows_neither_row_order_nor_folder() -> None:
    plain = validate(table())
    moved = validate(table(path=["/x/a.mp4", "/y/b.mp4", "c.wav", "z/d.jpg"]))
    assert digest(plain) == digest(moved) == digest(plain.iloc[::-1]) == digest(plain.assign(kind="more"))
    assert len(digest(plain)) == 16


def test_the_digest_of_equal_names_in_two_folders_knows_no_row_order() -> None:
    twice = validate(table(path=["real/a.mp4", "fake/a.mp4", "c.wav", "fake/c.wav"]))
    orders = [twice.iloc[list(order)] for order in ((0, 1, 2, 3), (1, 0, 3, 2), (3, 1, 2, 0))]
    assert len({digest(t) for t in orders}) == 1


def test_no_cell_can_pass_for_two() -> None:
    texts = ["a", "b", "a\x1fb", "a\nb", "\\", "a\\", '"a', 'a", "b', "\x1f", ""]
    given = validate(table()).iloc[1:2]
    tables = [given.assign(dataset=x, method=y) for x in texts for y in texts]
    assert len({digest(t) for t in tables}) == len(tables)


def test_the_digest_is_written_down() -> None:
    """It stands in bundles: it must not change with a library."""
    assert digest(validate(table())) == "9c27a9164ae759fb"


@pytest.mark.parametrize(
    "change",
    [
        {"fake": ["", "1", "1", "1"]},
        {"video_fake": ["0", "", "", "1"]},
        {"audio_fake": ["0", "1", "1", ""]},
        {"path": ["a.mp4", "b.mp4", "c.wav", "e.jpg"]},
        {"group": ["x", "x", "y", "zz"]},
        {"split": ["train", "train", "dev", "dev"]},
        {"dataset": ["one", "one", "two", "four"]},
        {"method": ["", "swap", "vocoder", "gan"]},
        {"original": ["", "b.mp4", "", "elsewhere/d.png"]},
        {"fake_segments": ["", "[[0.5, 1.5]]", "[[0, 1], [2.25, 3.5]]", ""]},
        {"fake_segments": ["", "", "[[0, 1], [2.25, 3]]", ""]},
        {"video_fake_segments": ["", "[[0.5, 1.5]]", "", ""]},
        {"audio_fake_segments": ["", "", "[[0.5, 1.5]]", ""]},
    ],
)
def test_the_digest_knows_everything_else(change: dict) -> None:
    assert digest(validate(table(**change))) != digest(validate(table()))


# -- folds and splits


def people(count: int, seed: int = 0, **columns: list) -> pd.DataFrame:
    """Groups of unequal sizes, each with reals and fakes of one kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(count):
        for clip in range(int(rng.integers(1, 6))):
            fake = clip % 2
            rows.append(
                {
                    "path": f"/data/{person}/{clip}.mp4",
                    "fake": fake,
                    "video_fake": fake * (person % 2),
                    "audio_fake": fake * (1 - person % 2),
                    "group": f"person {person}",
                    "split": "",
                    "dataset": f"set {person % 7}",
                    "method": "",
                }
            )
    return validate(pd.DataFrame(rows).assign(**columns), check_splits=False)


def test_folds_never_split_a_group_and_never_depend_on_the_order() -> None:
    given = people(60)
    fold = folds(given, 5)
    assert fold.groupby(given["group"]).nunique().eq(1).all()
    assert set(fold) == {0, 1, 2, 3, 4}
    assert fold.value_counts().min() > 0.8 * len(given) / 5
    mixed = given.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(folds(mixed, 5).sort_index(), fold)


def test_folds_are_stratified() -> None:
    given = people(300)
    fold = folds(given, 4)
    for label in LABELS:
        shares = given[label].astype(float).groupby(fold).mean()
        assert shares.max() - shares.min() < 0.03


def test_folds_by_dataset_keep_datasets_and_groups_whole() -> None:
    given = people(80)
    shared = given["group"].isin(["person 0", "person 1"])  # of set 0 and set 1
    given.loc[shared, "group"] = "both"
    fold = folds(given, 3, by="dataset")
    assert fold.groupby(given["dataset"]).nunique().eq(1).all()
    assert fold.groupby(given["group"]).nunique().eq(1).all()
    assert fold[given["dataset"] == "set 0"].iloc[0] == fold[given["dataset"] == "set 1"].iloc[0]


def wide(seed: int) -> pd.DataFrame:
    """Sources of very unequal sizes: of clips, speech and stills, of one class or both, some tied by a person."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in range(60):
        kind = ("real", "speech-tts", "still-gan")[source % 3]
        classes = ([0, 1], [0], [1])[int(rng.integers(3))]
        for file in range(int(rng.choice([1, 3, 10, 80]))):
            fake = classes[file % len(classes)]
            person = f"person {rng.integers(4)}" if rng.random() < 0.005 else f"{source}/{file // 4}"
            rows.append(
                {"path": f"/{source}/{file}.mp4", "fake": fake, "group": person, "split": "", "dataset": f"s{source}"}
                | {"video_fake": pd.NA if "speech" in kind else fake, "audio_fake": fake if "speech" in kind else pd.NA}
                | {"method": f"generator {rng.integers(90)}" if fake else "", "kind": kind}
            )
    return validate(pd.DataFrame(rows), check_splits=False)


@pytest.mark.parametrize("seed", range(4))
def test_sources_left_out_are_left_out_whole_and_weigh_alike(seed: int) -> None:
    given = wide(seed)
    fold = folds(given, 5, by="dataset")
    assert not fold.isna().any()
    assert set(fold) == set(range(5))
    for name in ("dataset", "group"):
        assert fold.groupby(given[name]).nunique().eq(1).all(), f"a {name} stands on two sides"
    mixed = given.sample(frac=1, random_state=seed)
    pd.testing.assert_series_equal(folds(mixed, 5, by="dataset").sort_index(), fold)
    origin = pd.Series(origins(given, given["fake"].eq(1).to_numpy(bool)), index=given.index)
    for medium in ("clips", "speech", "stills"):
        for fake in (0, 1):
            rows = (media(given) == medium) & (given["fake"] == fake).to_numpy(bool)
            number = origin[rows].groupby(fold[rows]).nunique().reindex(range(5), fill_value=0)
            assert number.min() > 0, f"a fold has no {medium} with fake = {fake}"
    again = pd.concat([given, given[given["dataset"] == "s0"].assign(path=lambda t: t["path"] + "2")])
    assert folds(again, 5, by="dataset").iloc[: len(given)].equals(fold), "more files of a source move nothing"


def strangers(count: int) -> pd.DataFrame:
    """Every file a group of its own; each odd one is a fake of the one before it."""
    rows = [
        {"path": f"/{i}.mp4", "fake": i % 2, "video_fake": i % 2, "audio_fake": 0, "group": f"g{i * 7 % count}"}
        | {"split": "", "dataset": f"set {i % 9}", "method": "", "original": f"/{i - 1}.mp4" if i % 2 else ""}
        for i in range(count)
    ]
    return validate(pd.DataFrame(rows), check_splits=False)


@pytest.mark.parametrize("by", ["group", "dataset"])
def test_folds_keep_a_fake_with_its_original(by: str) -> None:
    given = strangers(100)
    if by == "dataset":
        given["dataset"] = "set " + given.index.map(lambda i: str(i % 50)).astype(str)
    fold = folds(given, 4, by=by)  # type: ignore[arg-type]
    assert (fold[::2].to_numpy() == fold[1::2].to_numpy()).all()
    assert fold.nunique() == 4
    mixed = given.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(folds(mixed, 4, by=by).sort_index(), fold)  # type: ignore[arg-type]


def test_fakes_of_an_original_that_is_elsewhere_stay_together() -> None:
    given = strangers(80)
    given.loc[given.index[1::8], "original"] = "/absent.mp4"
    fold, split = folds(given, 3), assign_splits(given, 0.4, 0.2, 0)["split"]
    assert fold[1::8].nunique() == split[1::8].nunique() == 1


def test_splits_keep_a_fake_with_its_original() -> None:
    given = strangers(200)
    out = assign_splits(given, 0.3, 0.2, 0)
    validate(out)
    assert set(out["split"]) == {"train", "dev", "test"}
    assert (out["split"][::2].to_numpy() == out["split"][1::2].to_numpy()).all()
    given.loc[given.index[50], "split"] = "test"  # the split of an original is its fakes'
    assert assign_splits(given, 0.3, 0, 0)["split"].iloc[51] == "test"
    pd.testing.assert_frame_equal(
        assign_splits(given.iloc[::-1], 0.3, 0, 0).sort_index(), assign_splits(given, 0.3, 0, 0)
    )


def test_many_groups_are_folded_too() -> None:
    count = 6000
    given = pd.DataFrame({name: np.arange(count) // 2 % 2 for name in LABELS}).assign(
        group=np.arange(count).astype(str)
    )
    fold = folds(given.assign(dataset="d"), 3)
    assert fold.value_counts().min() > 0.95 * count / 3


@pytest.mark.parametrize(
    ("change", "number", "by", "message"),
    [
        ({}, 1, "group", "at least 2"),
        ({"group": "one"}, 2, "group", r"1 group\(s\) cannot be cut into 2 folds; ask for fewer folds"),
        ({"dataset": "one"}, 2, "dataset", r"1 dataset\(s\) that share no group.*cut by='group'"),
        ({}, 2, "person", "'group' or 'dataset'"),
    ],
)
def test_folds_that_cannot_be(change: dict, number: int, by: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        folds(people(20).assign(**change), number, by=by)  # type: ignore[arg-type]


def test_a_class_of_one_group_only_cannot_be_folded() -> None:
    given = people(20).assign(audio_fake=0)
    given["fake"] = given["video_fake"]
    given.loc[given["group"] == "person 3", ["fake", "video_fake", "audio_fake"]] = [1, 1, 1]
    with pytest.raises(ManifestError, match=r"every audio_fake = 1 stands in fold \d \(1 of the groups\)"):
        folds(given, 2)
    assert folds(given, 2, labels=("fake", "video_fake")).nunique() == 2
    # An output of one class only, or that nobody knows, asks for nothing.
    assert folds(given.assign(audio_fake=pd.array([pd.NA] * len(given), "Int8")), 2).nunique() == 2


def test_a_fold_without_a_class_that_enough_groups_have_is_refused() -> None:
    fold, unit = np.array([0, 0, 0, 1, 1, 2, 2]), np.arange(7)
    values = np.array([[0], [1], [-1], [0], [1], [0], [0]])
    check_folds(fold, unit, values, 3, "group", ["fake"])  # two groups cannot give three folds a fake
    values[2] = 1
    with pytest.raises(ManifestError, match="fold 2 has no fake = 1; ask for fewer folds"):
        check_folds(fold, unit, values, 3, "group", ["fake"])


def test_by_dataset_the_way_out_is_named() -> None:
    given = people(90)
    only = given["dataset"] == "set 1"
    given.loc[~only, ["audio_fake"]] = 0
    with pytest.raises(ManifestError, match=r"audio_fake = 1 stands in fold .*1 of the datasets.*by='group'"):
        folds(given, 2, by="dataset")
    folds(given, 2)


def test_new_rows_move_no_group() -> None:
    given = people(400)
    first = assign_splits(given, 0.1, 0.2, 0)
    half = given[given["group"].map(lambda g: int(g.split()[1])) < 200]
    second = assign_splits(half, 0.1, 0.2, 0)
    pd.testing.assert_series_equal(second["split"], first.loc[half.index, "split"])
    pd.testing.assert_frame_equal(assign_splits(given.iloc[::-1], 0.1, 0.2, 0).sort_index(), first)
    assert not assign_splits(given, 0.1, 0.2, 1)["split"].equals(first["split"])
    validate(first)


def test_splits_have_their_share_of_every_class() -> None:
    given = people(1500)
    split = assign_splits(given, 0.1, 0.2, 0)["split"]
    assert split.groupby(given["group"]).nunique().eq(1).all()
    for label in LABELS:
        for value in (0, 1):
            shares = split[given[label] == value].value_counts(normalize=True)
            assert abs(shares["dev"] - 0.1) < 0.03
            assert abs(shares["test"] - 0.2) < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_a_small_set_still_gets_both_classes_on_each_side(seed: int) -> None:
    out = assign_splits(people(12), 0.1, 0.1, seed)
    for split in ("train", "dev", "test"):
        part = out[out["split"] == split]
        for label in LABELS:
            assert set(part[label]) == {0, 1}, (split, label)


def test_a_split_that_is_given_stays() -> None:
    given = people(40)
    given.loc[given["group"] == "person 3", "split"] = "test"
    given.loc[given.index[given["group"] == "person 4"][0], "split"] = "dev"  # one row speaks for its group
    out = assign_splits(given, 0.2, 0, 0)
    assert set(out.loc[out["group"] == "person 3", "split"]) == {"test"}
    assert set(out.loc[out["group"] == "person 4", "split"]) == {"dev"}
    assert set(out.loc[~out["group"].isin(["person 3", "person 4"]), "split"]) == {"train", "dev"}
    assert set(assign_splits(people(40), 0, 0, 0)["split"]) == {"train"}
    pd.testing.assert_frame_equal(assign_splits(out, 0.5, 0.3, 9), out)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0), (0, 1), (float("nan"), 0)])
def test_shares_that_leave_no_training_data_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ManifestError, match="shares"):
        assign_splits(people(5), *shares, seed=0)


def test_files_of_equal_bytes_stay_on_one_side_of_a_fold() -> None:
    table = pd.DataFrame(
        {
            "path": [f"/{i}" for i in range(12)],
            "fake": [0, 1] * 6,
            "video_fake": [0, 1] * 6,
            "audio_fake": [0, 1] * 6,
            "group": [f"g{i}" for i in range(12)],
            "split": "train",
            "dataset": "d",
            "method": "",
        }
    )
    table = validate(table).assign(sha256=[str(i // 4) for i in range(12)])
    fold = folds(table, 3, by="group")
    assert fold.groupby(table["sha256"]).nunique().eq(1).all()
    assert fold.nunique() == 3
