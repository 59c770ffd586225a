"""Where names come from: folders as cards and computers leave them, lists and manifests as other systems write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from media_factory import encode

from avdetect.batch.folders import MEDIA_SUFFIXES, Skipped, is_media, media_below
from avdetect.batch.sources import expand, source_of
from avdetect.errors import ConfigError

# What cameras, phones, recorders and servers call their files, and names that are odd.
NAMES = """
    a.mp4 B.MP4 c.MOV d.m4v e.3gp f.3g2 00001.m2ts 00002.MTS tape.m2t MOV001.MOD MOV002.TOD VTS_01_1.VOB g.mkv
    h.mk3d i.mka j.webm k.weba l.avi m.divx n.wmv memo.wma o.asf p.flv q.f4v r.mxf s.dv t.ogv u.ogg v.oga w.opus
    x.mp3 y.m4a z.m4b aa.aac bb.flac cc.wav dd.w64 ee.aiff ff.aif gg.caf hh.au ii.amr jj.ac3 kk.qt ll.mpg mm.mpeg
    nn.ts oo.ivf pp.264 qq.hevc GOPR0001.LRV -dash.mp4 [1].mp4 'quote".mp4 🙂.MP4 ünïcode/日本.mov
""".split()
NAMES += ["two\nlines.mp4", "a b.mp4", "\udcff.mp4"]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def below(folder: Path) -> tuple[list[str], str]:
    skipped = Skipped()
    return [os.path.relpath(path, folder) for path in media_below(str(folder), skipped)], str(skipped)


def expanded(*paths: object) -> tuple[list[str], str]:
    skipped = Skipped()
    return list(expand([str(path) for path in paths], skipped)), str(skipped)


def test_every_suffix_that_is_scored_when_named_is_found(tmp_path: Path) -> None:
    assert below(tree(tmp_path, *NAMES)) == (sorted(NAMES), "")
    assert expanded(tmp_path / "[1].mp4") == ([str(tmp_path / "[1].mp4")], "")  # it exists: no pattern
    for address in ("https://x.org/watch?v=a", "HTTPS://x.org/*.mp4", "http://[::1]/a.mp4"):
        assert expanded(address)[0] == [address]  # whoever reads the file says what is wrong with it


def test_what_systems_leave_in_folders_is_no_media(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("a.mp4", "._a.mp4", ".DS_Store", "Thumbs.db", "desktop.ini", "a.mp4:Zone.Identifier", "a.srt", "IMG_1.JPG"),
        *("__MACOSX/._a.mp4", ".Trashes/old.mp4", "$RECYCLE.BIN/x.mp4", "sub/@eaDir/b.mp4/SYNOVIDEO.mp4", "sub/b.mp4"),
    )
    found, said = below(tmp_path)
    assert found == ["a.mp4", "sub/b.mp4"]
    parts = ("5 file(s) without media (1 ", "1 .jpg", "1 .db", "1 .identifier", "2 hidden file(s)")
    assert [p for p in (*parts, "4 hidden or system folder(s)", "__MACOSX", "@eaDir") if p not in said] == []


def test_folders_that_are_named_themselves(tmp_path: Path) -> None:
    tree(tmp_path, ".hidden/a.mp4", "card/__MACOSX/._a.mp4", "card/a.mp4", "empty/.keep", "text/a.txt")
    assert expanded(tmp_path / ".hidden")[0] == [str(tmp_path / ".hidden" / "a.mp4")]
    everything = sorted((tmp_path / "card").iterdir())  # as a shell expands card/*
    for paths in (everything, [f"{tmp_path}/card/*"]):
        found, said = expanded(*paths)
        assert found == [str(tmp_path / "card" / "a.mp4")]
        assert "__MACOSX" in said
    for name, says in (("empty", r"\(skipped: 1 hidden file"), ("text", r"1 file\(s\) without media \(1 \.txt\)")):
        with pytest.raises(ConfigError, match=f"leads to no media file .*{says}"):
            expanded(tmp_path / name)
    tree(tmp_path, "card/day/b.mp4", "card/notes.txt")
    found, said = expanded(tmp_path / "card" / "**")  # a folder that matches with what is in it counts once
    assert found == [str(tmp_path / "card" / name) for name in ("a.mp4", "day/b.mp4")]
    assert "1 hidden or system folder(s)" in said


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
    assert "1 link(s) to folders (" in said
    assert "1 folder(s) that cannot be read (" in said
    (tmp_path / "way").symlink_to(tmp_path / "real")
    assert len(expanded(tmp_path / "way")[0]) == 2  # one that is named is entered


def test_media_without_a_known_suffix_is_found_by_its_beginning(tmp_path: Path) -> None:
    for suffix in "mp4 mkv avi ts ogg flac wav mpg flv wma".split():
        picture = () if suffix in ("ogg", "flac", "wav", "wma") else ("-f", "lavfi", "-i", "testsrc=s=64x64:d=0.2")
        file = encode(tmp_path / f"clip.{suffix}", "-f", "lavfi", "-i", "sine=r=48000:d=0.2", *picture)
        assert f".{suffix}" in MEDIA_SUFFIXES
        assert is_media(str(file.rename(tmp_path / "videoplayback"))), suffix
        assert is_media(str((tmp_path / "videoplayback").rename(tmp_path / "clip.mp4.part"))), suffix


def test_what_is_no_media_is_not_taken_for_it(tmp_path: Path) -> None:
    pictures = (b"\0\0\0\x18ftypheic\0\0\0\0", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff\xe0" * 200)
    others = (b"Good morning, GGG. " * 40, b"", b"%PDF-1.7\n" * 100, b"PK\3\4" * 200)
    for number, content in enumerate(pictures + others):
        (tmp_path / f"{number}.x").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    found, said = below(tmp_path)
    assert (found, said.partition(" (")[0]) == ([], "skipped: 8 file(s) without media")


def listed(folder: Path, content: bytes, *before: str, null: bool = False) -> list[str | None]:
    (folder / "list").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch, (folder / "list").open() as file:
        patch.chdir(folder)
        patch.setattr(sys, "stdin", file)
        return list(source_of([*before, "-"], None, null).open())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_made_on_windows_are_read_as_meant(encoding: str, tmp_path: Path) -> None:
    tree(tmp_path, "sub/a.mp4", "ünï.mp4")
    text = "sub\\a.mp4\r\nünï.mp4\r\n\r\nhttps://example.org/x.mp4\r\n"
    for content in (text, text.rstrip()):
        assert listed(tmp_path, content.encode(encoding)) == ["sub/a.mp4", "ünï.mp4", "https://example.org/x.mp4"]


def test_names_on_standard_input_are_bytes_and_names_that_exist_stay_as_they_are(tmp_path: Path) -> None:
    tree(tmp_path, "cr.mp4\r", "back\\slash.mp4", "sub/x.mp4")
    assert listed(tmp_path, b"a b.mp4\n\n\xff.mp4\nlast", "x") == ["x", "a b.mp4", "\udcff.mp4", "last"]
    assert listed(tmp_path, b"cr.mp4\r\nback\\slash.mp4\n") == ["cr.mp4\r", "back\\slash.mp4"]
    assert listed(tmp_path, b'"sub\\x.mp4"\r\n"sub/x.mp4"\n') == ["sub/x.mp4", "sub/x.mp4"]
    assert listed(tmp_path, b"no\\such.mp4\r\n") == ["no\\such.mp4"]
    assert listed(tmp_path, b"a.mp4\r\0b\nc.mp4\0", null=True) == ["a.mp4\r", "b\nc.mp4"]
    assert listed(tmp_path, b"") == []
    with pytest.raises(ConfigError, match="--null"):
        listed(tmp_path, b"x" * 200_000)


@pytest.mark.parametrize(
    ("encoding", "delimiter", "end"), [("utf-8", ",", "\n"), ("utf-8-sig", ";", "\r\n"), ("utf-16", "\t", "\r\n")]
)
def test_manifests_of_spreadsheets_are_read_as_meant(encoding: str, delimiter: str, end: str, tmp_path: Path) -> None:
    tree(tmp_path, "sub/ü.mp4", "b.mp4")
    names = ["path", "sub\\ü.mp4", "b.mp4", "https://example.org/x.mp4", "absent.mp4"]
    manifest = tmp_path / "m.csv"
    manifest.write_bytes("".join(f"0{delimiter}{name}{end}" for name in names).encode(encoding))
    source = source_of([], manifest)
    inside = [str(tmp_path / name) for name in ("sub/ü.mp4", "b.mp4")]
    assert list(source.open()) == [*inside, "https://example.org/x.mp4", str(tmp_path / "absent.mp4")]
    assert source.total == 4
