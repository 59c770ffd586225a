"""Evidence as the recorder hands it over, drawn by NumPy and OpenCV: every state that the report page must stand.

`STATES` maps a name to a function that makes it. To look at them: `python tests/evidence_samples.py FOLDER`.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from avdetect.report.evidence import (
    Evidence,
    Fact,
    Frame,
    Moment,
    MouthStrip,
    Peaks,
    Picture,
    Sound,
    SyncCurve,
    SyncPoint,
)
from avdetect.types import Curve, Detection, Rate, Segment, StreamScore, SyncScore, TrackSummary

PICTURES = 16  # unlike ones; drawing takes longer than all that is tested
SKIN, HAIR, LIPS = (214, 176, 150), (62, 46, 40), (160, 84, 84)


def encoded(image: np.ndarray, mime: str = "image/jpeg") -> Picture:
    """An RGB or RGBA image (H, W, 3 or 4) uint8 as a picture."""
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    suffix, options = (".png", []) if mime == "image/png" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, code), options)
    assert done
    return Picture(mime, data.tobytes(), image.shape[1], image.shape[0])


def draw_face(image: np.ndarray, x: int, y: int, size: int, mouth: float) -> None:
    """A head of `size` pixels' width around (x, y) whose mouth is open by `mouth`, 0..1, drawn into `image`."""
    s = size / 100
    cv2.ellipse(image, (x, y - round(14 * s)), (round(47 * s), round(58 * s)), 0, 0, 360, HAIR, -1, cv2.LINE_AA)
    cv2.ellipse(image, (x, y), (round(40 * s), round(54 * s)), 0, 0, 360, SKIN, -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (x + side * round(16 * s), y - round(10 * s))
        cv2.ellipse(image, eye, (round(7 * s), round(4 * s)), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(image, eye, max(1, round(3 * s)), (50, 60, 70), -1, cv2.LINE_AA)
    cv2.line(image, (x, y - round(4 * s)), (x - round(4 * s), y + round(12 * s)), (180, 140, 116), 2, cv2.LINE_AA)
    opened = (round(13 * s), max(1, round((2 + 8 * mouth) * s)))
    cv2.ellipse(image, (x, y + round(28 * s)), opened, 0, 0, 360, LIPS, -1, cv2.LINE_AA)


@functools.cache
def frame_picture(seconds: float, width: int = 480, height: int = 270, noise: int = 6) -> Picture:
    """A newsroom with somebody talking."""
    rows = np.linspace(0, 1, height)[:, None, None]
    image = np.ascontiguousarray(np.broadcast_to((1 - rows) * (58, 84, 116) + rows * (26, 36, 52), (height, width, 3)))
    image = image.astype(np.uint8)
    cv2.rectangle(image, (0, height * 5 // 6), (width, height), (40, 48, 60), -1)
    head = (width // 2 + round(width / 30 * math.sin(seconds)), round(height * 0.46))
    body = (head[0], round(height * 1.02))
    cv2.ellipse(image, body, (width // 4, height // 3), 0, 0, 360, (54, 70, 98), -1, cv2.LINE_AA)
    draw_face(image, *head, min(width, height) // 3, 0.5 + 0.5 * math.sin(11 * seconds))
    grain = np.random.default_rng(round(seconds * 100)).integers(0, noise, image.shape, np.uint8)
    return encoded(cv2.add(image, grain))


@functools.cache
def crop_picture(seed: int) -> Picture:
    """A face crop of 160 pixels."""
    image = np.full((160, 160, 3), (44, 62, 88), np.uint8)
    draw_face(image, 80, 78, 112, (seed * 0.37) % 1)
    return encoded(image)


@functools.cache
def overlay_picture(seed: int) -> Picture:
    """Where blurring changed the logit of a crop of 160 pixels: opaque orange where it fell most."""
    cells = np.random.default_rng(seed).random((8, 8)).astype(np.float32) ** 3
    cells[5:7, 3:5] = 1
    alpha = cv2.resize(cells, (160, 160), interpolation=cv2.INTER_LINEAR) * 170
    image = np.dstack([np.full((160, 160, 3), (230, 120, 0), np.uint8), alpha.astype(np.uint8)])
    return encoded(image, "image/png")


def loudness(count: int) -> np.ndarray:
    """(count,) syllables: a slow envelope in 0..1."""
    t = np.arange(count) / count
    return np.clip(np.abs(np.sin(2 * np.pi * 9 * t)) * (0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2 * t + 1))), 0.02, 1)


def peaks(count: int) -> Peaks:
    return tuple((-round(0.9 * float(v), 4), round(float(v), 4)) for v in loudness(count) * 0.8)


@functools.cache
def mel_picture(width: int) -> Picture:
    bands = np.arange(80)[::-1, None] / 80
    voice = loudness(width)[None]
    values = voice * (0.25 + 0.6 * np.abs(np.cos(28 * bands + 3 * voice)) * np.exp(-2.2 * bands))
    values = values + np.random.default_rng(0).random((80, width)) * 0.08
    return encoded(cv2.cvtColor(cv2.applyColorMap((np.clip(values, 0, 1) * 255).astype(np.uint8), 13), 4), "image/png")


@functools.cache
def mouth_picture(count: int, side: int = 64) -> Picture:
    image = np.full((side, side * count, 3), SKIN, np.uint8)
    for i in range(count):
        opened = round(side * (0.04 + 0.14 * (0.5 + 0.5 * math.sin(1.7 * i))))
        centre = (side * i + side // 2, side // 2)
        cv2.ellipse(image, centre, (round(side * 0.3), opened), 0, 0, 360, LIPS, -1, cv2.LINE_AA)
        cv2.line(image, (side * i, 0), (side * i, side), (255, 255, 255), 1)
    return encoded(image)


def curve(start: float, end: float, mean: float, seed: int, track: int | None = None, gap: int | None = None) -> Curve:
    """A random walk around `mean` over each second of the clock, without the second `gap`."""
    seconds = [s for s in range(math.floor(start), math.ceil(end)) if s != gap]
    walk = np.random.default_rng(seed).normal(0, 0.7, len(seconds))
    values = tuple(round(float(mean + 0.6 * math.sin(0.7 * s) + w), 4) for s, w in zip(seconds, walk, strict=True))
    return in_probabilities(Curve(tuple(s + 0.5 for s in seconds), values, mean, track))


def in_probabilities(curve: Curve) -> Curve:
    seconds = tuple(1 / (1 + math.exp(-0.8 * v)) if math.isfinite(v) else math.nan for v in curve.values)
    return replace(curve, probabilities=seconds, probability=1 / (1 + math.exp(-0.8 * curve.score)))


def detection(seconds: float = 6.2, start: float = 0.0, tracks: int = 1) -> Detection:
    """A fake voice under a face that says little."""
    end = start + seconds
    faces = tuple(
        curve(start, end, 1.1 - 0.45 * t, t, t, gap=math.floor(start + 0.6 * seconds) if seconds > 4 else None)
        for t in range(tracks)
    )
    return Detection(
        path="/home/someone/videos/clip.mp4",
        verdict="fake",
        reason="the voice shows strong signs of manipulation",
        fake=0.64,
        video_fake=0.44,
        audio_fake=0.89,
        mismatch=0.21,
        fake_threshold=0.5388,
        undecided_threshold=0.45,
        start_seconds=start,
        duration_seconds=seconds,
        sync=SyncScore(0.12, 0.24, 0.81, 0),
        streams=(
            StreamScore("visual", 1.1, faces),
            StreamScore("audio", 2.1, (curve(start, end, 2.1, 99),)),
            StreamScore("sync", 0.9, ()),
        ),
        tracks=tuple(TrackSummary(t, start, end, (120.0 + 40 * t, 60.0, 260.0 + 40 * t, 230.0)) for t in range(tracks)),
        segments=(),
        missing={},
        warnings=(),
        model={
            "bundle": "default",
            "bundle_digest": "4f0c9a1d22e7b361",
            "training_data": "93d1cc0e5b7a4f28",
            "avdetect": "0.1.0",
            "preprocessing": "ab06158098952bc4",
            "face_detector": "mtcnn",
            "provider": "CPUExecutionProvider",
        },
        timing_seconds={"decode": 0.41, "faces": 0.72, "networks": 0.52, "total": 1.31},
        rates={
            **{"fake": Rate(0.6, 0.05, 0.31), "video_fake": Rate(0.4, 0.3, 0.7)},
            **{"audio_fake": Rate(0.85, 0.02, 0.4), "mismatch": Rate(0.0, 1.0, 1.0)},
        },
        limit="It has never seen most generators that exist.",
    )


def moments(tracks: int, start: float = 0.0) -> tuple[Moment, ...]:
    found = []
    for t in range(tracks):
        for i, (kind, p) in enumerate((("most", 0.9), ("most", 0.8), ("least", 0.3), ("least", 0.4))):
            overlay = overlay_picture(i) if kind == "most" else None
            blurred = p - 0.3 + 0.4 * (i % 2) if overlay else None
            found.append(Moment(t, kind, start + 0.4 + i, p - 0.01 * t, crop_picture(i + t), overlay, blurred))  # type: ignore[arg-type]
    return tuple(found)


def sync_curve(track: int, start: float, end: float) -> SyncCurve:
    points = []
    for s in range(math.floor(start), math.ceil(end)):
        confidence = 0.05 + 0.3 * abs(math.sin(s + track))
        empty = s % 5 == 3
        points.append(SyncPoint(s + 0.5, None if empty else 0.04 * (3 + s % 2), None if empty else confidence))
    return SyncCurve(track, tuple(points))


def evidence(seconds: float = 6.2, start: float = 0.0, tracks: int = 1, frames: int = 32) -> Evidence:
    """A whole report: nothing is missing."""
    found = detection(seconds, start, tracks)
    strip = MouthStrip(
        0, start + min(2.0, seconds / 2), min(1.0, seconds / 2), mouth_picture(25), 25, peaks(200), 0.12, 0.21
    )
    return Evidence(
        detection=found,
        facts=(
            Fact("container", "MP4 (mov,mp4,m4a,3gp,3g2,mj2)"),
            Fact("video", "H.264 High, 1280 x 720, 8 bit, 1.9 Mbit/s"),
            Fact("frame rate", "29.97 a second (read at 25)"),
            Fact("rotation", "0 degrees"),
            Fact("audio", "AAC, 44100 Hz, stereo, 128 kbit/s"),
            Fact("encoder", "Lavf61.7.100"),
        ),
        signs=(
            "The file was written by ffmpeg's library (Lavf), not by a camera.",
            "There is no time of recording in the file.",
        ),
        frames=tuple(
            Frame(round(start + (i + 0.5) * seconds / frames, 3), frame_picture((i % PICTURES) / 5))
            for i in range(frames)
        ),
        moments=moments(min(tracks, 8), start) if seconds > 4 else (),
        sound=Sound(start, seconds, mel_picture(min(1200, max(8, round(seconds * 100)))), peaks(800)),
        sync=tuple(sync_curve(t, start, start + seconds) for t in range(min(tracks, 2))),
        mouths=strip,
        limits=(
            "It has never seen most generators that exist.",
            "It errs most on material unlike its own: other cameras, codecs, languages, lighting.",
            "Do not decide about a person with it.",
        ),
        levels={"visual": 0.91, "audio": 0.78},
    )


def without(original: Evidence, *streams: str) -> Evidence:
    """`original` without what these streams say and saw."""
    reasons = {"visual": "no face", "audio": "no audio stream", "sync": "less than 1 s of a face with voice"}
    if "visual" in streams or "audio" in streams:
        streams = tuple(dict.fromkeys((*streams, "sync")))
    old = original.detection
    changed = replace(
        old,
        streams=tuple(s for s in old.streams if s.name not in streams),
        missing={s: reasons[s] for s in streams},
        video_fake=None if "visual" in streams else old.video_fake,
        audio_fake=None if "audio" in streams else old.audio_fake,
        mismatch=None,
        sync=None,
        tracks=() if "visual" in streams else old.tracks,
    )
    original = replace(original, detection=changed, sync=(), mouths=None)
    if "visual" in streams:
        original = replace(original, moments=())
    return replace(original, sound=None) if "audio" in streams else original


def abstaining() -> Evidence:
    nothing = without(evidence(), "visual", "audio")
    changed = replace(
        nothing.detection, verdict="abstain", reason="nothing to judge: no face; no audio stream", fake=None, rates={}
    )
    return replace(nothing, detection=changed)


def undecided_with_segments() -> Evidence:
    whole = evidence(tracks=2)
    segments = (
        Segment(1.0, 2.0, "visual", 1.93, 0),
        Segment(1.5, 4.0, "audio", 2.4),
        Segment(4.0, 5.0, "sync", 1.2, 1),
    )
    found = replace(
        whole.detection,
        verdict="undecided",
        reason="the voice shows moderate signs of manipulation, not enough to call the file fake",
        fake=0.51,
        audio_fake=0.5,
        rates=whole.detection.rates | {"fake": Rate(0.5, 0.1, 0.5), "audio_fake": Rate(0.5, 0.1, 0.6)},
        segments=segments,
        sync=SyncScore(-0.04, 0.03, 1.1, 1),
        warnings=("faces were found by scrfd, but this bundle was trained on faces found by mtcnn",),
    )
    return replace(whole, detection=found)


def no_sign() -> Evidence:
    whole = evidence()
    found = replace(
        whole.detection,
        verdict="no sign found",
        reason="nothing stands out from real files, which proves nothing",
        fake=0.41,
        audio_fake=0.3,
        rates={name: Rate(0.0, 1.0, 1.0) for name in whole.detection.rates},
        limit="This bundle states no limits.",
    )
    return replace(whole, detection=found, limits=(), signs=())


def named(path: str) -> Evidence:
    whole = evidence(frames=4)
    return replace(whole, detection=replace(whole.detection, path=path))


def with_nan() -> Evidence:
    """Numbers that are none, wherever a number may stand."""
    nan, whole = float("nan"), evidence(frames=4)
    old = whole.detection
    broken = in_probabilities(Curve((0.5, 1.5, 2.5, nan), (nan, 1.0, math.inf, 0.2), nan, 0))
    found = replace(
        old,
        fake=nan,
        video_fake=nan,
        sync=SyncScore(nan, nan, nan, 0),
        streams=(StreamScore("visual", nan, (broken,)), StreamScore("audio", nan, (replace(broken, track_id=None),))),
        segments=(Segment(1.0, nan, "visual", nan, 0),),
        timing_seconds={"total": nan},
        tracks=(TrackSummary(0, 0.0, nan, (nan, 0.0, 1.0, 1.0)),),
    )
    assert whole.sound
    assert whole.mouths
    return replace(
        whole,
        detection=found,
        moments=tuple(replace(m, probability=nan, blurred=nan) for m in whole.moments),
        sync=(SyncCurve(0, (SyncPoint(0.5, nan, nan), SyncPoint(1.5, 0.0, nan))),),
        mouths=replace(whole.mouths, offset_seconds=nan, confidence=nan, peaks=((nan, nan),) * 8),
        sound=replace(whole.sound, peaks=((nan, 0.4),) * 8),
    )


STATES: dict[str, Callable[[], Evidence]] = {
    "fake": evidence,
    "no_sign": no_sign,
    "undecided_with_segments": undecided_with_segments,
    "abstain": abstaining,
    "no_face": lambda: without(evidence(), "visual"),
    "no_sound": lambda: without(evidence(), "audio"),
    "no_sync": lambda: without(evidence(), "sync"),
    "narrow_frames": lambda: replace(evidence(), frames=(Frame(0.0, frame_picture(0.0, 4, 480)),) * 8),
    "no_frames": lambda: replace(evidence(), frames=()),
    "nothing_kept": lambda: replace(abstaining(), frames=(), facts=(), signs=(), limits=()),
    "instant": lambda: evidence(0.2, frames=5),
    "window": lambda: replace(evidence(12.0, start=61.5, tracks=3), asked_seconds=12.0),
    "minute": lambda: evidence(60.0, tracks=4, frames=120),
    "hour": lambda: evidence(3600.0, tracks=3, frames=120),
    "crowd": lambda: evidence(12.0, tracks=30),
    "long_name": lambda: named("/videos/" + "interview_of_the_minister_" * 9 + ".mp4"),
    "hostile_name": lambda: named("/videos/<img onerror=alert(1) src=x>\"'&\\\n\x1b[31m\u202egpj.mp4\udcff"),
    "right_to_left_name": lambda: named("/videos/مقابلة مع الوزير 2024.mp4"),
    "nan": with_nan,
}


def main() -> None:
    from avdetect.report.page import render_page

    for name, make in STATES.items():
        (Path(sys.argv[1]) / f"{name}.html").write_text(render_page(make()), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
