"""Evidence as the recorder hands it over, with drawn pictures: every state that the report page must stand.

`STATES` maps a name to a function that makes it. To look at them: `python tests/evidence_samples.py FOLDER`.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from avdetect.report.evidence import Evidence, Frame, Moment, MouthStrip, Peaks, Picture, Sound, SyncCurve, SyncPoint
from avdetect.report.pictures import jpeg
from avdetect.types import Curve, Detection, Rate, Segment, StreamScore, SyncScore, TrackSummary

PICTURES = 16  # unlike ones; drawing takes longer than all that is tested
NAN = float("nan")


@functools.cache
def picture(seed: int, width: int, height: int) -> Picture:
    """A gradient of a colour of its own, with grain."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0.3, 1, height)[:, None, None] * rng.integers(60, 220, 3)
    image = (rows + rng.integers(0, 8, (height, width, 1))).astype(np.uint8)
    return jpeg(image, 19_000)


def peaks(count: int) -> Peaks:
    """Syllables: a slow envelope."""
    t = np.arange(count) / count
    loud = np.abs(np.sin(2 * np.pi * 9 * t)) * (0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2 * t + 1)))
    return tuple((-round(0.9 * float(v), 4), round(float(v), 4)) for v in 0.8 * np.clip(loud, 0.02, 1))


def curve(start: float, end: float, mean: float, seed: int, track: int | None = None, gap: int | None = None) -> Curve:
    """A random walk around `mean` over each second of the clock, without the second `gap`."""
    seconds = [s for s in range(math.floor(start), math.ceil(end)) if s != gap]
    walk = np.random.default_rng(seed).normal(0, 0.7, len(seconds))
    values = tuple(round(float(mean + 0.6 * math.sin(0.7 * s) + w), 4) for s, w in zip(seconds, walk, strict=True))
    return in_probabilities(Curve(tuple(s + 0.5 for s in seconds), values, mean, track))


def in_probabilities(curve: Curve) -> Curve:
    seconds = tuple(1 / (1 + math.exp(-0.8 * v)) if math.isfinite(v) else NAN for v in curve.values)
    return replace(curve, probabilities=seconds, probability=1 / (1 + math.exp(-0.8 * curve.score)))


def detection(seconds: float = 6.2, start: float = 0.0, tracks: int = 1) -> Detection:
    """A fake voice under a face that says little."""
    end = start + seconds
    gap = math.floor(start + 0.6 * seconds) if seconds > 4 else None
    faces = tuple(curve(start, end, 1.1 - 0.45 * t, t, t, gap) for t in range(tracks))
    return Detection(
        path="/home/someone/videos/clip.mp4", verdict="fake", reason="the voice shows strong signs of manipulation",
        fake=0.64, video_fake=0.44, audio_fake=0.89, mismatch=0.21, fake_threshold=0.5388, undecided_threshold=0.45,
        start_seconds=start, duration_seconds=seconds, sync=SyncScore(0.12, 0.24, 0.81, 0),
        streams=(
            StreamScore("visual", 1.1, faces),
            StreamScore("audio", 2.1, (curve(start, end, 2.1, 99),)),
            StreamScore("sync", 0.9, ()),
        ),
        tracks=tuple(TrackSummary(t, start, end, (120.0 + 40 * t, 60.0, 260.0 + 40 * t, 230.0)) for t in range(tracks)),
        segments=(), missing={}, warnings=(),
        model={"bundle": "default", "bundle_digest": "4f0c", "avdetect": "0.1.0", "face_detector": "mtcnn"},
        timing_seconds={"decode": 0.41, "networks": 0.52, "total": 1.31},
        rates={
            **{"fake": Rate(0.6, 0.05, 0.31), "video_fake": Rate(0.4, 0.3, 0.7)},
            **{"audio_fake": Rate(0.85, 0.02, 0.4), "mismatch": Rate(0.0, 1.0, 1.0)},
        },
        limit="It has never seen most generators that exist.",
    )  # fmt: skip


def moments(tracks: int, start: float = 0.0) -> tuple[Moment, ...]:
    kinds: list[tuple[Literal["most", "least"], float]] = [("most", 0.9), ("most", 0.8), ("least", 0.3), ("least", 0.4)]
    return tuple(
        Moment(track, kind, start + 0.4 + i, p - 0.01 * track, picture(i + track, 160, 160))
        for track in range(tracks)
        for i, (kind, p) in enumerate(kinds)
    )


def sync_curve(track: int, start: float, end: float) -> SyncCurve:
    seconds = [s for s in range(math.floor(start), math.ceil(end)) if s % 5 != 3]
    points = (SyncPoint(s + 0.5, 0.04 * (3 + s % 2), 0.05 + 0.3 * abs(math.sin(s + track))) for s in seconds)
    return SyncCurve(track, tuple(points))


def evidence(seconds: float = 6.2, start: float = 0.0, tracks: int = 1, frames: int = 32) -> Evidence:
    """A whole report: nothing is missing."""
    mouths = (start + min(2.0, seconds / 2), min(1.0, seconds / 2))
    return Evidence(
        detection=detection(seconds, start, tracks),
        facts={"container": "MP4 / QuickTime", "video": "h264, 1280 × 720 pixels", "frame rate": "29.97 a second"},
        frames=tuple(
            Frame(round(start + (i + 0.5) * seconds / frames, 3), picture(i % PICTURES, 480, 270))
            for i in range(frames)
        ),
        moments=moments(min(tracks, 4), start) if seconds > 4 else (),
        sound=Sound(start, seconds, picture(0, min(1200, max(8, round(seconds * 100))), 160), peaks(800)),
        sync=tuple(sync_curve(t, start, start + seconds) for t in range(min(tracks, 2))),
        mouths=MouthStrip(0, *mouths, picture(1, 64 * 25, 64), 25, peaks(200), 0.12, 0.21),
        limits=("It has never seen most generators that exist.", "Do not decide about a person with it."),
        levels={"visual": 0.91, "audio": 0.78},
        crop_seconds=0.4,
    )


def changed(original: Evidence, **values: object) -> Evidence:
    """With other values in its detection."""
    return replace(original, detection=replace(original.detection, **values))  # type: ignore[arg-type]


def without(original: Evidence, *streams: str) -> Evidence:
    """`original` without what these streams say and saw; without face or voice there is no match."""
    reasons = {"visual": "no face", "audio": "no audio stream", "sync": "less than 1 s of a face with voice"}
    old, gone = original.detection, {*streams, "sync"}
    face, voice = "visual" not in gone, "audio" not in gone
    old_sound = original.sound if voice else None
    return changed(
        replace(original, sync=(), mouths=None, moments=original.moments * face, sound=old_sound),
        streams=tuple(s for s in old.streams if s.name not in gone),
        missing={s: reason for s, reason in reasons.items() if s in gone}, mismatch=None, sync=None,
        video_fake=old.video_fake if face else None, audio_fake=old.audio_fake if voice else None,
        tracks=old.tracks * face,
    )  # fmt: skip


def abstaining() -> Evidence:
    reason = "nothing to judge: no face; no audio stream"
    return changed(without(evidence(), "visual", "audio"), verdict="abstain", reason=reason, fake=None, rates={})


def undecided_with_segments() -> Evidence:
    whole = evidence(tracks=2)
    stretches = ((1.0, 2.0, "visual", 1.93, 0), (1.5, 4.0, "audio", 2.4, None), (4.0, 5.0, "visual", 1.2, 1))
    return changed(
        whole, verdict="undecided", fake=0.51, audio_fake=0.5,
        reason="the voice shows moderate signs of manipulation, not enough to call the file fake",
        rates=whole.detection.rates | {"fake": Rate(0.5, 0.1, 0.5), "audio_fake": Rate(0.5, 0.1, 0.6)},
        segments=tuple(Segment(*stretch) for stretch in stretches), sync=SyncScore(-0.04, 0.03, 1.1, 1),
        warnings=("faces were found by scrfd, but this bundle was trained on faces found by mtcnn",),
    )  # fmt: skip


def no_sign() -> Evidence:
    reason, limit = "nothing stands out from real files, which proves nothing", "This bundle states no limits."
    stated = {"verdict": "no sign found", "reason": reason, "limit": limit, "fake": 0.41, "audio_fake": 0.3}
    rates = dict.fromkeys(detection().rates, Rate(0.0, 1.0, 1.0))
    return replace(changed(evidence(), **stated, rates=rates), limits=())


def named(path: str) -> Evidence:
    return changed(evidence(frames=4), path=path)


def with_nan() -> Evidence:
    """What networks may say that is no number, wherever it may stand."""
    broken = in_probabilities(Curve((0.5, 1.5, 2.5), (NAN, 1.0, math.inf), NAN, 0))
    whole = changed(
        evidence(frames=4), fake=NAN, video_fake=NAN, sync=SyncScore(NAN, NAN, NAN, 0),
        streams=(StreamScore("visual", NAN, (broken,)), StreamScore("audio", NAN, (replace(broken, track_id=None),))),
    )  # fmt: skip
    assert whole.mouths
    return replace(
        whole,
        moments=tuple(replace(m, probability=NAN) for m in whole.moments),
        sync=(SyncCurve(0, (SyncPoint(1.5, 0.0, NAN),)),),
        mouths=replace(whole.mouths, offset_seconds=NAN, confidence=NAN),
    )


STATES: dict[str, Callable[[], Evidence]] = {
    "fake": evidence,
    "no_sign": no_sign,
    "undecided_with_segments": undecided_with_segments,
    "abstain": abstaining,
    "no_face": lambda: without(evidence(), "visual"),
    "no_sound": lambda: without(evidence(), "audio"),
    "no_sync": lambda: without(evidence(), "sync"),
    "silent": lambda: replace(without(evidence(), "audio"), sound=evidence().sound),
    "narrow_frames": lambda: replace(evidence(), frames=(Frame(0.0, picture(0, 4, 480)),) * 8),
    "nothing_kept": lambda: replace(abstaining(), frames=(), facts={}, limits=()),
    "instant": lambda: evidence(0.2, frames=5),
    "window": lambda: replace(evidence(12.0, start=61.5, tracks=3), asked_seconds=12.0),
    "minute": lambda: evidence(60.0, tracks=4, frames=120),
    "hour": lambda: evidence(3600.0, tracks=3, frames=120),
    "crowd": lambda: evidence(12.0, tracks=64, frames=8),
    "long_name": lambda: named("/videos/" + "interview_of_the_minister_" * 9 + ".mp4"),
    "hostile_name": lambda: named("/videos/<img onerror=alert(1) src=x>\"'&\\\n\x1b[31m\u202egpj.mp4\udcff"),
    "right_to_left_name": lambda: named("/videos/مقابلة مع الوزير 2024.mp4"),
    "nan": with_nan,
}


if __name__ == "__main__":
    from avdetect.report.page import render_page

    for name, make in STATES.items():
        (Path(sys.argv[1]) / f"{name}.html").write_text(render_page(make()), encoding="utf-8", newline="")
