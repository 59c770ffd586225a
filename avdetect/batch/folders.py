"""Which files of a folder are media. A file that is named itself is scored whatever it is called.

The rule is that of a named file as far as a look at its beginning goes: a suffix of the formats that `avdetect.media`
reads, or, where the suffix says nothing, a first line that only such a format has. A damaged file of a media suffix is
found too, so that its row says what is wrong with it.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

# Of every format that is read, by the names that cameras, phones, recorders, editors and servers give it.
MEDIA_SUFFIXES = frozenset(
    """
    .264 .265 .3g2 .3gp .3gp2 .3gpp .aac .ac3 .adts .aif .aifc .aiff .amr .asf .au .avc .avi .awb .bwf .caf .divx .dv
    .eac3 .ec3 .f4a .f4b .f4v .flac .flv .gif .h264 .h265 .hevc .insv .ismv .ivf .lrv .m1v .m2a .m2p .m2t .m2ts .m2v
    .m4a .m4b .m4r .m4v .mk3d .mka .mkv .mod .mov .mp2 .mp3 .mp4 .mp4v .mpa .mpe .mpeg .mpg .mpv .mts .mxf .nut .obu
    .oga .ogg .ogm .ogv .ogx .opus .qt .rf64 .spx .tod .tp .trp .ts .vob .w64 .wav .wave .weba .webm .wma .wmv .xvid
    """.split()
)
# What such files begin with: (offset, bytes).
_BEGINNINGS = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (8, b"WAVE"),
    (0, b"OggS"), (0, b"fLaC"), (0, b"0&\xb2u\x8ef\xcf\x11"), (0, b"FLV\x01"), (0, b"caff"), (8, b"AIFF"), (8, b"AIFC"),
    (0, b"#!AMR"), (0, b"ID3"), (0, b".snd"), (0, b"DKIF"), (0, b"\x00\x00\x01\xba"), (0, b"\x06\x0e+4"),
    (0, b"GIF8"),
)  # fmt: skip
_PHOTOGRAPHS = (b"heic", b"heix", b"heif", b"mif1", b"avif", b"crx ")  # brands of `ftyp`
_PACKETS = ((188, 0), (192, 4), (204, 0))  # of MPEG transport streams: size, and where its sync byte stands
# Folders that systems keep for themselves: resource forks, bins, thumbnails that bear the names of videos.
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "@eadir", "#recycle")
)
_MOST_NAMED = 5


class Skipped:
    """What folders held that is not scored."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()  # of files that are no media
        self.hidden = 0  # files
        self.folders: list[str] = []  # hidden ones, and those of a system
        self.links: list[str] = []  # to folders; what they lead to may be above, or anywhere
        self.unreadable: list[str] = []  # folders

    def __str__(self) -> str:
        """One line; empty where nothing was skipped."""
        kinds = [f"{count} {suffix}" for suffix, count in self.suffixes.most_common()]
        said = [
            _counted(self.suffixes.total(), "file(s) without media", kinds),
            _counted(self.hidden, "hidden file(s)"),
            _counted(len(self.folders), "hidden or system folder(s)", self.folders),
            _counted(len(self.links), "link(s) to folders", self.links),
            _counted(len(self.unreadable), "folder(s) that cannot be read", self.unreadable),
        ]
        return f"skipped: {', '.join(filter(None, said))}" if any(said) else ""


def _counted(count: int, what: str, names: Sequence[str] = ()) -> str:
    shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    return f"{count} {what}" + (f" ({shown})" if names else "") if count else ""


def is_kept_out(folder: str) -> bool:
    """Whether a folder is hidden, or kept by a system for itself."""
    name = os.path.basename(os.path.normpath(folder))
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _SYSTEM_FOLDERS


def media_below(folder: str, skipped: Skipped) -> list[str]:
    """The media files of a folder and of the folders in it, sorted; what is left out is counted in `skipped`."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: skipped.unreadable.append(error.filename)):
        kept = []
        for name in sorted(folders):
            path = os.path.join(parent, name)
            if is_kept_out(path):
                skipped.folders.append(path)
            elif os.path.islink(path):
                skipped.links.append(path)
            else:
                kept.append(name)
        folders[:] = kept
        for name in names:
            path = os.path.join(parent, name)
            if name.startswith("."):
                skipped.hidden += 1
            elif is_media(path):
                found.append(path)
            else:
                skipped.suffixes[os.path.splitext(name)[1].lower() or "without a suffix"] += 1
    return sorted(found)


def is_media(path: str) -> bool:
    """Whether a file of a folder is scored. It is opened only where its suffix says nothing."""
    if os.path.splitext(path)[1].lower() in MEDIA_SUFFIXES:
        return True
    start = b""
    with suppress(OSError):
        if os.path.isfile(path):  # a pipe would block
            with open(path, "rb") as file:
                start = file.read(512)
    if start[4:8] == b"ftyp" and start[8:12] in _PHOTOGRAPHS:
        return False
    is_stream = any(start[at::size][:3] == b"GGG" for size, at in _PACKETS)
    return is_stream or any(start[at : at + len(mark)] == mark for at, mark in _BEGINNINGS)
