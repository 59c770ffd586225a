"""Hostile, damaged and oversized input: typed errors, nothing else opened, no process or file left behind."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from batch_commands import ROOT, all_gone, family
from hostile.made import FORGED, matroska, pcm_track, sound_blocks
from media_reading import read_all
from readme_media import SAMPLE

from avdetect import Detector
from avdetect._media import child
from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.preprocess import Preprocessor


def children() -> set[int]:
    """Live or unreaped processes below this one."""
    return set(family(os.getpid())[1:])


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    before, files = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert children() <= before, "a child process was left"
    assert len(os.listdir("/proc/self/fd")) <= files, "a file was left open"


# ---- not a media file


def test_files_that_are_no_media(media, tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), np.zeros((64, 64, 3), np.uint8))
    says = {"empty.mp4": "is empty", "text.mp4": "cannot be read as", "headless.mp4": "moov atom not found"}
    for name, why in (says | {"face.png": "is a picture.*pictures are not judged"}).items():
        with pytest.raises(MediaError, match=rf"{name}.*{why}") as caught:
            read_all(media(name) if name in says else tmp_path / name)
        assert "/proc/self/fd" not in str(caught.value)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    for path in (tmp_path / "fifo.mp4", tmp_path / "link.mp4", tmp_path, "/dev/zero"):
        with pytest.raises(MediaError, match="not a regular file"):
            probe(path)
    for path in (tmp_path / "missing.mp4", "nul\0.mp4"):
        with pytest.raises(MediaError, match="cannot open"):
            probe(path)


def test_a_process_without_standard_streams_reads_all_the_same(tmp_path, media):
    """Descriptors 0 to 2 are free then; a file that got one of them would not reach ffmpeg, whose own they are."""
    code = """if True:
        import pathlib, sys
        from avdetect.media import MediaReader
        with MediaReader(sys.argv[1]) as reader:
            pathlib.Path(sys.argv[2]).write_text(str(sum(map(len, reader.video()))))"""
    command = [sys.executable, "-c", code, str(media("silent_film.mp4")), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "-", *command], timeout=60, env=environment)
    assert (tmp_path / "out").read_text() == "10"


NAMES = [
    *(b"-i.mp4", b"http:__127.0.0.1:1.mp4", b"concat:a.mp4|b.mp4", b"pipe:0"),
    *(b"frame%03d.png", b"a b'c\"d$(id);e.mp4", b"not utf-8 \xff\xfe"),
    b"line\nStream #0:7: Video: h264, yuv420p, 99999x99999.mp4",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_just_a_path(tmp_path, monkeypatch, media, name):
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(name)).write_bytes(media("silent_film.mp4").read_bytes())
    assert read_all(name)[0] == 10
    if name.startswith((b"http", b"concat", b"pipe", b"-")):
        Path(os.fsdecode(name)).unlink()
        with pytest.raises(MediaError, match="cannot open"):
            probe(os.fsdecode(name))
    assert len(os.listdir(tmp_path)) <= 1


# ---- files that name others

PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile '{target}'\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT10S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "asx.mp4": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "m3u.mp4": "#EXTM3U\n{target}\n",
    "rtsp.mp4": "rtsptext\r\n{target}",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_in_disguise_opens_nothing(tmp_path, name, media):
    """Targets: files, a FIFO (opening it would hang until the stall limit, another error), and a local server."""
    fifo = tmp_path / "fifo.ts"
    os.mkfifo(fifo)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        targets = ["/etc/passwd", f"file:{fifo}", f"http://127.0.0.1:{port}/x.ts", f"concat:{fifo}|/etc/passwd"]
        targets += [str(media("clap.ts"))]
        for target in targets if name == "hls.m3u8" else targets[1:3]:
            path = tmp_path / name
            path.write_text(PLAYLISTS[name].format(target=target))
            with pytest.raises(MediaError) as caught:
                read_all(path, MediaLimits(stall_seconds=10))
            assert not isinstance(caught.value, LimitError)
            assert "root:" not in str(caught.value)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_every_format_is_self_contained():
    names = set(child.FORMATS.split(","))
    banned = "hls dash concat image2 image2pipe sdp rtsp rtp lavfi tty imf ffmetadata avisynth webm_dash_manifest"
    assert not names & set(banned.split())
    known = subprocess.run([ffmpeg_path(), "-hide_banner", "-demuxers"], capture_output=True, text=True).stdout
    listed = {name for line in known.splitlines() for name in [*line.split(), "", ""][1].split(",")}
    assert names <= listed


def read_or_refused(path: Path) -> None:
    try:
        read_all(path, MediaLimits(max_duration_seconds=60, max_wall_seconds=4, stall_seconds=1))
    except MediaError as error:
        assert str(path)[:20] in str(error)  # noqa: PT017


@pytest.mark.parametrize("forged", FORGED)
def test_words_of_a_file_that_look_like_ffmpegs_are_frames_or_media_errors(tmp_path, forged):
    """ffmpeg prints a language as it is: line breaks and lines like its own."""
    path = tmp_path / "forged.mkv"
    path.write_bytes(matroska(pcm_track(1, f"en)\n{FORGED[forged]}\n".encode()), sound_blocks()))
    read_or_refused(path)


# ---- limits


@pytest.mark.parametrize(
    ("name", "limit", "says"),
    [
        ("clap.mp4", {"max_pixels": 1000}, "64 x 48"),
        ("clap.mp4", {"max_duration_seconds": 1.5}, "lasts 2 s"),
        ("video.h264", {"max_duration_seconds": 1.5}, "runs longer than 1.5 s"),  # no duration in its header
        ("tone.aac", {"max_duration_seconds": 0.5}, "s"),
        ("many_streams.mkv", {"max_streams": 3}, "streams"),
        ("long.mp4", {"max_wall_seconds": 0.02}, "decoding took 0.02 s"),
        ("long.mp4", {"max_memory_bytes": 40_000_000}, "memory"),
    ],
)
def test_a_limit_names_itself_and_its_key(media, name, limit, says):
    with pytest.raises(LimitError, match=says) as caught:
        read_all(media(name), MediaLimits(**limit))
    assert f"limits.{next(iter(limit))}" in str(caught.value)


def test_all_of_a_file_has_a_limit_too(detector):
    """Two decoders that wait as long as each may, and whatever looks at the frames, are more than either."""
    config, faces = detector.preprocessor.config, detector.preprocessor.detector
    limited = Preprocessor(config, faces, MediaLimits(max_file_seconds=0.1))
    with pytest.raises(LimitError, match=r"took more than 0\.1 s; raise limits\.max_file_seconds"):
        Detector(detector.bundle, limited, detector.networks).score(SAMPLE)


def test_a_picture_that_grows_past_the_limit_in_mid_stream_is_not_decoded(media, monkeypatch, tmp_path):
    path = media("size_change.ts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFREPORT", "file=report.log:level=32")
    frames, _, warnings = read_all(path, MediaLimits(max_pixels=64 * 64))
    assert 5 <= frames <= 20
    assert warnings
    assert os.listdir(tmp_path) == [], "the child inherits no report file"


# ---- damage


@pytest.mark.parametrize("name", ["truncated.mp4", "truncated.mkv", "truncated.ts"])
def test_a_truncated_file_gives_what_it_holds(media, name):
    frames, samples, warnings = read_all(media(name))
    assert 50 < frames < 100  # of 150
    assert 2 < samples / 16000 < 4  # of 6 s
    assert warnings or name.endswith("ts")  # a transport stream has no end to miss


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_how_much_of_a_damaged_file_could_be_read_is_said(media, detector, name):
    warnings = detector.score(media(name)).warnings
    said = re.fullmatch(r"only (\d\.\d) of 6\.\d s could be read", warnings[0])
    assert said
    assert 2 < float(said[1]) < 3
    assert sum("could be read" in warning for warning in warnings) == 1
    window = detector.score(media(name), start_seconds=0.5, duration_seconds=1.0)
    assert not any("could be read" in warning for warning in window.warnings), "nor is any beyond the window"


def test_damage_that_costs_less_than_a_second_is_not_counted(media, detector):
    warnings = detector.score(media("damaged.ts")).warnings
    assert any("the file is damaged" in warning for warning in warnings)
    assert not any("could be read" in warning for warning in warnings)


@pytest.mark.parametrize("name", ["hollow.mkv", "hollow.mp4"])
def test_an_empty_track_is_said_to_be_empty(media, detector, name):
    with MediaReader(media(name)) as reader:
        assert reader.info.audio is not None
        with pytest.raises(MediaError, match="the audio track gives no sound: it is empty"):
            list(reader.audio(1.0))
        assert len(list(reader.video())) == 5
    detection = detector.score(media(name))
    assert detection.missing["audio"] == "the audio track gives no sound"
    assert "decoded" not in " ".join(detection.warnings)


@pytest.mark.parametrize(("name", "broken", "whole"), [("blind", "video", "audio"), ("deaf", "audio", "video")])
def test_one_half_is_read_when_the_other_is_destroyed(media, name, broken, whole):
    with MediaReader(media(f"{name}.avi")) as reader:
        halves = {"video": reader.video(), "audio": reader.audio(1.0)}
        with pytest.raises(MediaError, match=f"cannot be read as {broken}"):
            list(halves[broken])
        assert len(list(halves[whole])) >= 2
        assert reader.warnings == []  # the damage is none of the other half's
    with MediaReader(media(f"{name}.ts")) as reader:  # that half cannot be made out; the other begins at its start
        assert list(reader.info.unusable) == [broken]
        (warning,) = reader.warnings
        assert warning.startswith(f"{broken}: ")
        if broken == "audio":
            assert next(reader.video()).first_frame == 0
        else:
            assert sum(len(chunk.samples) for chunk in reader.audio(1.0)) < 3 * 16000  # of 2 s at 1000 s


@pytest.mark.parametrize("name", ["clap.mp4", "clap.mkv", "clap.ts", "clap.avi", "tone.ogg"])
def test_bit_flips_and_cuts_end_in_frames_or_media_errors(media, tmp_path, name):
    original = media(name).read_bytes()
    path = tmp_path / name
    for seed in range(2):
        rng = random.Random(f"{name} {seed}")
        data = bytearray(original)
        for _ in range(rng.choice([1, 20, 400])):
            # Headers matter most: half of the flips go to the first and last kilobytes.
            where = rng.choice([rng.randrange(len(data)), rng.randrange(2000), len(data) - 1 - rng.randrange(2000)])
            data[where] ^= 1 << rng.randrange(8)
        path.write_bytes(data[: rng.randrange(len(data))] if seed % 2 else data)
        read_or_refused(path)


# ---- nothing survives


def test_closing_early_ends_the_child(media):
    before = children()
    reader = MediaReader(media("long.mp4"))
    video, audio = reader.video(), reader.audio(1.0)
    next(video), next(audio)
    assert len(children() - before) >= 1
    reader.close()
    assert children() == before
    reader.close()


def test_no_child_survives_the_end_of_this_process(media, tmp_path):
    code = """if True:
        import os, signal, sys, time
        from avdetect.media import MediaReader
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background hands down SIG_IGN
        frames = MediaReader(sys.argv[1]).video()
        next(frames)
        print(open("/proc/self/task/%d/children" % os.getpid()).read(), flush=True)
        time.sleep(60)"""
    ways = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    parents = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(media("long.mp4"))],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "cwd": tmp_path},
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        )
        for _ in ways
    ]
    for parent, how in zip(parents, ways, strict=True):
        with parent:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert pids
            parent.send_signal(how)
            parent.wait(10)
        assert all_gone(pids), how
    assert os.listdir(tmp_path) == []
