"""Where names come from: folders as cards and computers leave them, lists and manifests as other systems write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from media_factory import RENDERER

from avdetect.batch.folders import MEDIA_SUFFIXES, Skipped, is_media, media_below
from avdetect.batch.sources import expand, source_of
from avdetect.errors import ConfigError

# What cameras, phones, recorders and servers call their files.
NAMES = """
    a.mp4 B.MP4 c.MOV d.m4v e.3gp f.3g2 00001.m2ts 00002.MTS tape.m2t MOV001.MOD MOV002.TOD VTS_01_1.VOB g.mkv
    h.mk3d i.mka j.webm k.weba l.avi m.divx n.wmv memo.wma o.asf p.flv q.f4v r.mxf s.dv t.ogv u.ogg v.oga w.opus
    x.mp3 y.m4a z.m4b aa.aac bb.flac cc.wav dd.w64 ee.aiff ff.aif gg.caf hh.au ii.amr jj.ac3 kk.qt ll.mpg mm.mpeg
    nn.ts oo.ivf pp.264 qq.hevc GOPR0001.LRV
""".split()


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def below(folder: Path) -> tuple[list[str], str]:
    skipped = Skipped()
    return [os.path.relpath(path, folder) for path in media_below(str(folder), skipped)], str(skipped)


def test_every_suffix_that_is_scored_when_named_is_found(tmp_path: Path) -> None:
    assert below(tree(tmp_path, *NAMES)) == (sorted(NAMES), "")


def test_what_systems_leave_in_folders_is_no_media(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("a.mp4", "._a.mp4", ".DS_Store", "Thumbs.db", "desktop.ini", "a.mp4:Zone.Identifier", "a.srt", "IMG_1.JPG"),
        *("__MACOSX/._a.mp4", ".Trashes/old.mp4", "$RECYCLE.BIN/x.mp4", "sub/@eaDir/b.mp4/SYNOVIDEO.mp4", "sub/b.mp4"),
    )
    found, said = below(tmp_path)
    assert found == ["a.mp4", "sub/b.mp4"]
    assert "5 files without media (1 " in said
    for part in (
        "1 .jpg",
        "1 .db",
        "1 .identifier",
        "2 hidden files",
        "4 hidden or system folders",
        "__MACOSX",
        "@eaDir",
    ):
        assert part in said


def test_folders_that_are_named_themselves(tmp_path: Path) -> None:
    tree(tmp_path, ".hidden/a.mp4", "card/__MACOSX/._a.mp4", "card/a.mp4", "empty/.keep", "text/a.txt")
    assert list(expand([str(tmp_path / ".hidden")])) == [str(tmp_path / ".hidden" / "a.mp4")]
    everything = [str(path) for path in sorted((tmp_path / "card").iterdir())]  # as a shell expands card/*
    for paths in (everything, [f"{tmp_path}/card/*"]):
        skipped = Skipped()
        assert list(expand(paths, skipped)) == [str(tmp_path / "card" / "a.mp4")]
        assert "__MACOSX" in str(skipped)
    with pytest.raises(ConfigError, match=r"leads to no media file \(skipped: 1 hidden file\)"):
        list(expand([str(tmp_path / "empty")]))
    with pytest.raises(ConfigError, match=r"1 file without media \(1 \.txt\)"):
        list(expand([str(tmp_path / "text")]))


def test_linked_folders_and_those_that_cannot_be_read_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "real/a.mp4", "secret/b.mp4", "real/deep/c.mp4")
    (tmp_path / "real" / "again").symlink_to(tmp_path)  # a ring
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere")  # its row says so
    scandir = os.scandir

    def refusing(path: str):
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found, said = below(tmp_path)
    assert found == ["broken.mp4", "link.mp4", "real/a.mp4", "real/deep/c.mp4"]
    assert "1 link (" in said
    assert "secret) that cannot be read" in said
    (tmp_path / "way").symlink_to(tmp_path / "real")
    assert len(list(expand([str(tmp_path / "way")]))) == 2  # one that is named is entered


def test_odd_names_are_found(tmp_path: Path) -> None:
    names = ["two\nlines.mp4", "🙂.MP4", "ünïcode/日本.mov", "-dash.mp4", "a b.mp4", "[1].mp4", "'quote\".mp4"]
    assert below(tree(tmp_path, *names)) == (sorted(names), "")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))).touch()
    assert "\udcff.mp4" in below(tmp_path)[0]
    assert list(expand([str(tmp_path / "[1].mp4")])) == [str(tmp_path / "[1].mp4")]  # it exists: no pattern


def test_a_folder_that_matches_with_what_is_in_it_counts_once(tmp_path: Path) -> None:
    tree(tmp_path, "card/a.mp4", "card/day/b.mp4", "card/__MACOSX/c.mp4", "card/notes.txt")
    skipped = Skipped()
    found = list(expand([str(tmp_path / "card" / "**")], skipped))
    assert found == [str(tmp_path / "card" / name) for name in ("a.mp4", "day/b.mp4")]
    assert len(skipped.folders) == 1


@pytest.mark.parametrize("address", ["https://x.org/watch?v=a", "HTTPS://x.org/*.mp4", "http://[::1]/a.mp4"])
def test_addresses_are_no_patterns(address: str) -> None:
    """Whoever reads the file says what is wrong with it."""
    assert list(expand([address])) == [address]


@pytest.mark.parametrize(
    "suffix", ["mp4", "mov", "mkv", "avi", "ts", "ogg", "flac", "wav", "mpg", "flv", "wma", "m2ts"]
)
def test_media_without_a_known_suffix_is_found_by_its_beginning(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"clip.{suffix}"
    picture = [] if suffix in ("ogg", "flac", "wav", "wma") else ["-f", "lavfi", "-i", "testsrc=s=64x64:d=0.2"]
    subprocess.run(
        [RENDERER, "-v", "error", "-f", "lavfi", "-i", "sine=r=48000:d=0.2", *picture, str(file)], check=True
    )
    assert f".{suffix}" in MEDIA_SUFFIXES
    for name in ("videoplayback", "clip.mp4.part", "VID.bin"):
        file = file.rename(tmp_path / name)
        assert is_media(str(file))


def test_what_is_no_media_is_not_taken_for_it(tmp_path: Path) -> None:
    contents = {
        "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0", "b.webp": b"RIFF\0\0\0\0WEBPVP8 ", "c.jpg": b"\xff\xd8\xff\xe0" * 200,
        "d.txt": b"Good morning, GGG. " * 40, "e": b"", "f.pdf": b"%PDF-1.7\n" * 100, "g.zip": b"PK\3\4" * 200,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    found, said = below(tmp_path)
    assert found == []
    assert said.startswith("skipped: 8 files without media (")


def listed(monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes, null: bool = False) -> list[str | None]:
    (folder / "list").write_bytes(content)
    monkeypatch.chdir(folder)
    with (folder / "list").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        return list(source_of(["-"], None, null).open())


WINDOWS = "sub\\a.mp4\r\nünï.mp4\r\n\r\nhttps://example.org/x.mp4\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_made_on_windows_are_read_as_meant(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "sub/a.mp4", "ünï.mp4")
    meant = ["sub/a.mp4", "ünï.mp4", "https://example.org/x.mp4"]
    assert listed(monkeypatch, tmp_path, WINDOWS.encode(encoding)) == meant
    assert listed(monkeypatch, tmp_path, WINDOWS.rstrip().encode(encoding)) == meant


def test_names_that_exist_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "cr.mp4\r", "back\\slash.mp4", "sub/x.mp4")
    assert listed(monkeypatch, tmp_path, b"cr.mp4\r\nback\\slash.mp4\n") == ["cr.mp4\r", "back\\slash.mp4"]
    assert listed(monkeypatch, tmp_path, b'"sub\\x.mp4"\r\n"sub/x.mp4"\n') == ["sub/x.mp4", "sub/x.mp4"]
    assert listed(monkeypatch, tmp_path, b"no\\such.mp4\r\n") == ["no\\such.mp4"]
    assert listed(monkeypatch, tmp_path, b"a.mp4\r\0b\nc.mp4\0", null=True) == ["a.mp4\r", "b\nc.mp4"]
    assert listed(monkeypatch, tmp_path, b"a") == ["a"]
    assert listed(monkeypatch, tmp_path, b"") == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_manifests_of_spreadsheets_are_read_as_meant(encoding: str, delimiter: str, end: str, tmp_path: Path) -> None:
    tree(tmp_path, "sub/ü.mp4", "b.mp4")
    rows = [
        ("label", "path"),
        ("1", "sub\\ü.mp4"),
        ("0", "b.mp4"),
        ("0", "https://example.org/x.mp4"),
        ("0", "absent.mp4"),
    ]
    manifest = tmp_path / "m.csv"
    manifest.write_bytes("".join(delimiter.join(row) + end for row in rows).encode(encoding))
    source = source_of([], manifest)
    inside = [str(tmp_path / name) for name in ("sub/ü.mp4", "b.mp4")]
    assert list(source.open()) == [*inside, "https://example.org/x.mp4", str(tmp_path / "absent.mp4")]
    assert source.total == 4


def test_a_table_for_excel_is_read_by_all(tmp_path: Path) -> None:
    from avdetect.batch.tables import table_for
    from avdetect.report.data import Failure, to_dict

    for excel in (False, True):
        out = tmp_path / f"{excel}.csv"
        table = table_for(out, excel=excel)
        table.add(to_dict(Failure("é 日本.mp4", "MediaError", "gone")))
        table.close()
        assert out.read_bytes().startswith(b"\xef\xbb\xbf") == excel
        assert pd.read_csv(out)["path"].tolist() == ["é 日本.mp4"]
        assert list(source_of([], out).open()) == [str(tmp_path / "é 日本.mp4")]
