"""Detector: a path in, a Detection out. ONNX Runtime only, no torch."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from avdetect._version import __version__
from avdetect.bundle import Bundle, Calibration, OnnxNetworks, execution_providers
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.faces import build_detector
from avdetect.media import MediaInfo
from avdetect.pooling import FEATURES, NUM_VALUES, PART_OF, STREAM_OF_VALUE, STREAMS, SyncReading
from avdetect.preprocess import ClipStream, Preprocessor
from avdetect.scoring import HIDDEN, StreamOutputs, StreamScorer
from avdetect.segments import find_segments
from avdetect.types import (
    SAMPLE_RATE,
    Clip,
    Curve,
    Detection,
    FacesSeen,
    MediaTracks,
    StreamName,
    StreamScore,
    SyncScore,
    TrackSummary,
    VideoFrames,
)
from avdetect.verdict import first_limit, judge, reached_rates

CLEAR_SYNC = 0.1  # confidence from which on an offset is worth reading
MISMATCH_SECONDS = 0.1  # people notice about that much (ITU-R BT.1359); a smaller offset says nothing of a swap
MIN_HIDDEN_CROPS, MIN_HIDDEN_SHARE = 5, 0.1  # of a track's crops: fewer hidden mouths are not worth a warning
Progress = Callable[[float, float | None], None]  # seconds of media done, seconds in all when known


class Observer(Protocol):
    """Sees what a file is judged by, as it passes; `report.recorder` keeps some of it for a report.

    Called from the thread that scores, in the file's order; what it keeps of an array it must copy.
    """

    def opened(self, info: MediaInfo) -> None:
        """What the file says of itself; nothing is decoded yet."""

    def frames(self, frames: VideoFrames) -> None:
        """Whole decoded frames, before their faces are sought; ahead of the clip that they belong to."""

    def scored(self, clip: Clip, outputs: StreamOutputs) -> None:
        """A clip that all networks have seen; `outputs` holds what they said of all clips up to this one."""


def load_detector(
    bundle: str | Path | None = None,
    *,
    device: str = "auto",
    face_detector: str | None = None,
    face_model: str | Path | None = None,
    limits: MediaLimits | None = None,
    threads: int | None = None,
) -> Detector:
    """A Detector with the default bundle, or with the one in the folder `bundle`.

    device: auto, cpu or cuda. face_detector: mtcnn or scrfd; None takes the one the bundle was trained with.
    face_model: weights of the face detector, where they are not in their default place. threads: the most CPU threads
    of the decoder, and of a network (two networks run at a time; small ones always take one). None is the cores there
    are, eight and four at most.
    Raises ModelError or ConfigError.
    """
    if face_model is not None and face_detector is None:
        raise ConfigError("a face model needs the detector that it is for: scrfd or mtcnn (--detector)")
    loaded = Bundle.load(bundle)
    providers = tuple(execution_providers(device))
    faces = build_detector(face_detector or loaded.info.preprocess.detector, path=face_model, providers=providers)
    preprocessor = Preprocessor(loaded.info.preprocess, faces, limits or MediaLimits(), threads)
    return Detector(loaded, preprocessor, OnnxNetworks(loaded, device, threads))


class Detector:
    """Scores files. Holds the networks; keeps nothing of one file for the next."""

    def __init__(self, bundle: Bundle, preprocessor: Preprocessor, networks: OnnxNetworks) -> None:
        self.bundle, self.preprocessor, self.networks = bundle, preprocessor, networks
        self._scorer = StreamScorer(networks, bundle.info.model, bundle.info.preprocess.faces)

    def score(
        self,
        path: str | os.PathLike[str],
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        video_track: int | None = None,
        audio_track: int | None = None,
        on_progress: Progress | None = None,
        observer: Observer | None = None,
    ) -> Detection:
        """Score the file at `path`, or the window of it that starts at `start_seconds`.

        Of several tracks (counted from 1) the default picture, of equals the largest, and the sound in which somebody
        speaks are judged.
        Raises MediaError when the file cannot be read as media, ends before the window or lacks the track, LimitError
        when it exceeds a limit, ConfigError for a window that is no window. A file that can be read but shows neither a
        face nor a voice gives a Detection whose verdict is "abstain".
        """
        began = time.perf_counter()
        stream = self.preprocessor.open(
            path,
            start_seconds,
            duration_seconds,
            on_frames=observer.frames if observer else None,
            video_track=video_track,
            audio_track=audio_track,
        )
        if observer:
            observer.opened(stream.info)
        outputs, network_seconds, end_seconds = self._scorer.start(), 0.0, stream.start_seconds
        with stream, ThreadPoolExecutor(2) as pool:
            running: list[Future[float]] = []
            looked_at: Clip | None = None
            for clip in itertools.chain(stream, [None]):
                # The networks see a clip while the next one is decoded, and the picture beside the sound.
                network_seconds += sum(half.result() for half in running)
                if observer and looked_at:
                    observer.scored(looked_at, outputs)
                looked_at = clip
                if clip is None:
                    break
                running = [
                    pool.submit(_timed, half, outputs, clip) for half in (self._scorer.look, self._scorer.listen)
                ]
                end_seconds = clip.start_seconds + clip.duration_seconds
                if on_progress:
                    on_progress(end_seconds - stream.start_seconds, stream.expected_seconds)
        self._scorer.finish(outputs, stream.missing)
        timing = {**stream.timing_seconds, "networks": network_seconds, "total": time.perf_counter() - began}
        return self._detection(os.fspath(path), outputs, stream, end_seconds - stream.start_seconds, timing)

    def _detection(
        self, path: str, outputs: StreamOutputs, stream: ClipStream, duration: float, timing: dict[str, float]
    ) -> Detection:
        info = self.bundle.info
        found = probabilities(self.networks, info.calibration, outputs)
        verdict, reason = judge(found, info.calibration, outputs.missing)
        reading = outputs.sync_reading()
        faces = stream.faces_seen(outputs.visual) if stream.info.video else None
        end_seconds = stream.start_seconds + duration
        window = info.model.audio.window_seconds
        heard = _heard(outputs.audio, window, stream.start_seconds, end_seconds)
        streams = tuple(self._in_probabilities(score) for score in _stream_scores(outputs, heard))
        return Detection(
            path=path,
            verdict=verdict,
            reason=reason,
            fake=found["fake"],
            video_fake=found["video_fake"],
            audio_fake=found["audio_fake"],
            mismatch=found["mismatch"],
            fake_threshold=info.calibration.fake_threshold,
            undecided_threshold=info.calibration.undecided_threshold,
            start_seconds=stream.start_seconds,
            duration_seconds=round(duration, 3),
            sync=_sync_score(*reading) if reading else None,
            streams=streams,
            tracks=_track_summaries(outputs),
            segments=find_segments(streams, stream.start_seconds, round(end_seconds, 3)),
            missing=outputs.missing,
            warnings=(*stream.warnings, *_face_warnings(faces, outputs), *self._own_warnings()),
            model={
                "bundle": info.name,
                "bundle_digest": self.bundle.digest,
                "training_data": str(info.training.get("manifest_digest", "unstated")),
                "avdetect": __version__,
                "preprocessing": info.preprocess_digest,
                "face_detector": self.preprocessor.detector.name,
                "provider": self.networks.providers[0],
            },
            timing_seconds={stage: round(seconds, 4) for stage, seconds in timing.items()},
            faces=faces,
            media=_tracks_of(stream.info, outputs.speech_seconds),
            rates=reached_rates(found, info.calibration),
            limit=first_limit(info.limits),
        )

    def cause_probabilities(self, stream: StreamName, scores: Sequence[float]) -> list[float]:
        """P of the cause that `stream`, visual or audio, judges: of a file that has this score and nothing else."""
        place = STREAMS.index(stream)
        features = np.zeros((len(scores), len(FEATURES)), np.float32)
        features[:, STREAM_OF_VALUE.index(place)] = scores
        features[:, NUM_VALUES + place] = 1
        logits = self.networks.fusion(features) if len(scores) else np.zeros((0, 4), np.float32)
        return [float(p) for p in self.bundle.info.calibration.probabilities(logits)[:, 1 + place]]

    def _in_probabilities(self, score: StreamScore) -> StreamScore:
        """With the probabilities of its curves, where its scores are those of its cause."""
        if score.name == "sync":
            return score
        curves = []
        for curve in score.curves:
            *seconds, whole = (round(p, 6) for p in self.cause_probabilities(score.name, [*curve.values, curve.score]))
            curves.append(replace(curve, probabilities=tuple(seconds), probability=whole))
        return replace(score, curves=tuple(curves))

    def _own_warnings(self) -> Iterator[str]:
        """Of how this detector was put together, whatever the file."""
        trained, used = self.bundle.info.preprocess.detector, self.preprocessor.detector.name
        if trained != used:
            yield f"faces were found by {used}, but this bundle was trained on faces found by {trained}"
        if self.networks.fell_back:
            yield "scored on the CPU: CUDA could not be started (driver or CUDA libraries missing; see avdetect doctor)"


def _tracks_of(info: MediaInfo, speech_seconds: float) -> MediaTracks:
    return MediaTracks(
        video=info.video.track if info.video else None,
        videos=len(info.videos),
        audio=info.audio.track if info.audio else None,
        audios=len(info.audios),
        speech_seconds=round(speech_seconds, 2),
    )


def _face_warnings(faces: FacesSeen | None, outputs: StreamOutputs) -> Iterator[str]:
    """What of the faces was not judged though others were."""
    if faces and faces.seen > faces.judged > 0:
        yield f"{faces.seen} faces were seen at once, {faces.judged} of them judged"
    for track, hidden in sorted(outputs.hidden.items()):
        seen = len(outputs.boxes[track])
        if len(hidden) >= max(MIN_HIDDEN_CROPS, MIN_HIDDEN_SHARE * seen):
            share = "all" if len(hidden) == seen else f"{100 * len(hidden) / seen:.0f} %"
            left_out = "the face was not judged" if outputs.is_hidden(track) else "these were not judged"
            yield (
                f"{HIDDEN} (a mask, a microphone, a hand?) in {share} of the pictures of face track {track}, from "
                f"{min(hidden):.1f} to {max(hidden):.1f} s; {left_out}"
            )


def _timed(half: Callable[[StreamOutputs, Clip], None], outputs: StreamOutputs, clip: Clip) -> float:
    """Wall seconds of `half` of the networks on one clip."""
    began = time.perf_counter()
    half(outputs, clip)
    return time.perf_counter() - began


def probabilities(networks: OnnxNetworks, calibration: Calibration, outputs: StreamOutputs) -> dict[str, float | None]:
    """P(fake), P(video_fake), P(audio_fake), P(mismatch) of finished outputs; None for what no stream says anything
    of."""
    parts = {part: stream not in outputs.missing for stream, part in PART_OF.items()}
    judged = {"fake": any(parts.values()), **parts}
    if not judged["fake"]:
        return dict.fromkeys(judged)
    found = calibration.probabilities(networks.fusion(outputs.features()[None])[0])
    return {name: float(p) if there else None for (name, there), p in zip(judged.items(), found, strict=True)}


def _sync_score(track_id: int, reading: SyncReading) -> SyncScore:
    return SyncScore(
        offset_seconds=round(reading.offset_seconds, 3),
        confidence=reading.confidence,
        min_distance=reading.min_distance,
        track_id=track_id,
    )


def _per_second(points: Iterable[tuple[float, float]]) -> dict[int, float]:
    """(seconds, value) points -> their means over each second of the file's clock."""
    cells: dict[int, list[float]] = defaultdict(list)
    for seconds, value in points:
        cells[math.floor(seconds)].append(float(value))
    return {second: float(np.mean(values)) for second, values in cells.items()}


def _heard(points: Iterable[tuple[float, float]], window: float, start: float, end: float) -> dict[int, float]:
    """(centre, value) of windows as long as `window`, all in seconds -> means over each second of the file's clock.

    Windows overlap and outlast a second: each counts as much as it hears of it, from start to end.
    """
    total, heard = defaultdict[int, float](float), defaultdict[int, float](float)
    for centre, value in points:
        first, last = max(start, centre - window / 2), min(end, centre + window / 2)
        for second in range(math.floor(first), math.ceil(last)):
            share = min(last, second + 1) - max(first, second)
            total[second] += share * float(value)
            heard[second] += share
    # Less than a sample is rounding.
    return {second: total[second] / share for second, share in heard.items() if share > 1 / SAMPLE_RATE}


def _curve(cells: dict[int, float], score: float, track_id: int | None = None) -> Curve:
    """Each second's value at its middle."""
    times = tuple(second + 0.5 for second in sorted(cells))
    return Curve(times, tuple(round(cells[second], 4) for second in sorted(cells)), score, track_id)


def _stream_scores(outputs: StreamOutputs, heard: dict[int, float]) -> tuple[StreamScore, ...]:
    """`heard`: the audio logit of each second."""
    scores = []
    visual, audio, speaker = outputs.visual_logit(), outputs.audio_logit(), outputs.sync_reading()
    if visual is not None:
        logits = outputs.track_logits()
        curves = [
            _curve(_per_second(points), outputs.track_logit(logits[t]), t) for t, points in outputs.visual.items()
        ]
        scores.append(StreamScore("visual", visual, tuple(curves)))
    if audio is not None:
        scores.append(StreamScore("audio", audio, (_curve(heard, audio),)))
    if speaker is not None:
        curves = [_curve(_per_second(reading.curve), reading.at_zero, t) for t, reading in outputs.readings.items()]
        scores.append(StreamScore("sync", speaker[1].at_zero, tuple(curves)))
    return tuple(scores)


def _track_summaries(outputs: StreamOutputs) -> tuple[TrackSummary, ...]:
    summaries = []
    for track, points in sorted(outputs.boxes.items()):
        box = np.median([box for _, box in points], axis=0).round(1).tolist()
        seconds = [second for second, _ in points]
        summaries.append(TrackSummary(track, round(min(seconds), 2), round(max(seconds), 2), tuple(box)))
    return tuple(summaries)
