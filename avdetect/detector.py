"""Detector: a path in, a Detection out. ONNX Runtime only, no torch."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from avdetect._version import __version__
from avdetect.bundle import Bundle, Calibration, OnnxNetworks, execution_providers
from avdetect.config import AudioConfig, MediaLimits
from avdetect.errors import ConfigError
from avdetect.faces import build_detector
from avdetect.media import MediaInfo
from avdetect.pooling import FEATURES, NUM_VALUES, PART_OF, STREAM_OF_VALUE, STREAMS, heard_per_second, per_second
from avdetect.preprocess import ClipStream, Preprocessor
from avdetect.scoring import HIDDEN, StreamOutputs, StreamScorer
from avdetect.segments import find_segments
from avdetect.types import (
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

CLEAR_SYNC = 0.15  # confidence from which on an offset is worth reading: of own voices 95 % reach it, of others' 10 %
MISMATCH_SECONDS = 0.1  # people notice about that much (ITU-R BT.1359); a smaller offset says nothing of a swap
MIN_HIDDEN_CROPS, MIN_HIDDEN_SHARE = 5, 0.1  # of a track's crops: fewer hidden mouths are not worth a warning
Progress = Callable[[float, float | None], None]  # seconds of media done, seconds in all when known


class Observer(Protocol):
    """Sees what a file is judged by, as it passes; `report.recorder` keeps some of it for a report. Called from the
    thread that scores, in the file's order; what it keeps of an array it must copy."""

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
    face_model: its weights, where they are not in their default place. threads: the most CPU threads of the decoder,
    and of a network (two run at a time; small ones take one); None is the cores there are, eight and four at most.
    Raises ModelError or ConfigError.
    """
    if face_model is not None and face_detector is None:
        raise ConfigError("a face model needs the detector that it is for: scrfd or mtcnn (--detector)")
    loaded = Bundle.load(bundle)
    providers = tuple(execution_providers(device))
    faces = build_detector(face_detector or loaded.info.preprocess.detector, path=face_model, providers=providers)
    preprocessor = Preprocessor(loaded.info.preprocess, faces, limits or MediaLimits(), threads)
    networks = OnnxNetworks(loaded, device, threads)
    return Detector(replace(loaded, files={}), preprocessor, networks)  # the graphs' bytes are not needed any more


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
        sample: int | None = None,
        on_progress: Progress | None = None,
        observer: Observer | None = None,
    ) -> Detection:
        """Score the file at `path`, or the window of it that starts at `start_seconds`.

        Of several tracks (counted from 1) the default picture, of equals the largest, and the sound in which somebody
        speaks are judged. `sample`: see `Preprocessor.open`. A file that shows neither a face nor a voice gets the
        verdict "abstain". Raises MediaError when the file cannot be read as media, ends before the window or lacks the
        track, LimitError when it exceeds a limit, ConfigError for a window that is no window or a sample below 0.
        """
        began = time.perf_counter()
        stream = self.preprocessor.open(
            path,
            start_seconds,
            duration_seconds,
            on_frames=observer.frames if observer else None,
            video_track=video_track,
            audio_track=audio_track,
            sample=sample,
        )
        if observer:
            observer.opened(stream.info)
        outputs, network_seconds, scored_seconds = self._scorer.start(), 0.0, 0.0
        end_seconds = stream.start_seconds
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
                halves = (self._scorer.score_video, self._scorer.score_audio)
                running = [pool.submit(_timed, half, outputs, clip) for half in halves]
                end_seconds = clip.start_seconds + clip.duration_seconds
                scored_seconds += clip.duration_seconds
                if on_progress:
                    on_progress(scored_seconds, stream.selected_seconds)
        if stream.windows:
            end_seconds = stream.start_seconds + (stream.expected_seconds or 0.0)
        self._scorer.finish(outputs, stream.missing)
        timing = {**stream.timing_seconds, "networks": network_seconds, "total": time.perf_counter() - began}
        return self._detection(os.fspath(path), outputs, stream, end_seconds, timing)

    def _detection(
        self, path: str, outputs: StreamOutputs, stream: ClipStream, end_seconds: float, timing: dict[str, float]
    ) -> Detection:
        info, media = self.bundle.info, stream.info
        found = probabilities(self.networks, info.calibration, outputs)
        streams = tuple(self._stream_scores(outputs))
        segments = find_segments(streams, stream.start_seconds, round(end_seconds, 3), stream.judged)
        judged = stream.judged or ((stream.start_seconds, end_seconds),)
        judged_seconds = sum(end - start for start, end in judged)
        verdict, reason = judge(found, info.calibration, outputs.missing, segments, judged_seconds)
        if stream.judged:
            reason += f" ({_percent_judged(stream)} of the file was judged)"
        faces = stream.faces_seen(outputs.visual) if media.video else None
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
            duration_seconds=round(end_seconds - stream.start_seconds, 3),
            sync=_sync_score(outputs),
            streams=streams,
            tracks=tuple(_track_summaries(outputs)),
            segments=segments,
            missing=outputs.missing,
            windows=stream.judged,
            warnings=(
                *_sample_warning(stream),
                *stream.warnings,
                *_face_warnings(faces, outputs),
                *_voice_warning(outputs, info.model.audio),
                *self._own_warnings(),
            ),
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
            media=MediaTracks(
                video=media.video.track if media.video else None,
                videos=len(media.videos),
                audio=media.audio.track if media.audio else None,
                audios=len(media.audios),
                speech_seconds=round(outputs.speech_seconds, 2),
            ),
            rates=reached_rates(found, info.calibration),
            limit=first_limit(info.limits),
        )

    def cause_probabilities(self, stream: StreamName, scores: Sequence[float]) -> list[float]:
        """P of the cause that `stream`, visual or audio, judges: of a file that has this score and nothing else."""
        if not scores:
            return []
        place = STREAMS.index(stream)
        features = np.zeros((len(scores), len(FEATURES)), np.float32)
        features[:, STREAM_OF_VALUE.index(place)] = scores
        features[:, NUM_VALUES + place] = 1
        found = self.bundle.info.calibration.probabilities(self.networks.fusion(features))
        return [float(p) for p in found[:, 1 + place]]

    def _stream_scores(self, outputs: StreamOutputs) -> Iterator[StreamScore]:
        visual, audio, speaker = outputs.visual_logit(), outputs.audio_logit(), outputs.sync_reading()
        if visual is not None:
            curves = [
                self._judged_curve("visual", per_second(outputs.face_points(track)), logit, track)
                for track, logit in outputs.track_logits().items()
            ]
            yield StreamScore("visual", visual, tuple(curves))
        if audio is not None:
            heard = heard_per_second(outputs.stretches)
            yield StreamScore("audio", audio, (self._judged_curve("audio", heard, audio),))
        if speaker is not None:
            readings = outputs.readings.items()
            curves = [_curve(per_second(reading.curve), reading.at_zero, track) for track, reading in readings]
            yield StreamScore("sync", speaker[1].at_zero, tuple(curves))

    def _judged_curve(
        self, stream: StreamName, cells: dict[int, float], score: float, track_id: int | None = None
    ) -> Curve:
        """With its probabilities: its scores are those of its cause."""
        curve = _curve(cells, score, track_id)
        *seconds, whole = (round(p, 6) for p in self.cause_probabilities(stream, [*curve.values, score]))
        return replace(curve, probabilities=tuple(seconds), probability=whole)

    def _own_warnings(self) -> Iterator[str]:
        """Of how this detector was put together, whatever the file."""
        trained, used = self.bundle.info.preprocess.detector, self.preprocessor.detector.name
        if trained != used:
            yield f"faces were found by {used}, but this bundle was trained on faces found by {trained}"
        if self.networks.fell_back:
            yield "scored on the CPU: CUDA could not be started (driver or CUDA libraries missing; see avdetect doctor)"


def probabilities(networks: OnnxNetworks, calibration: Calibration, outputs: StreamOutputs) -> dict[str, float | None]:
    """P(fake), P(video_fake), P(audio_fake), P(mismatch) of finished outputs; None for what no stream says anything
    of."""
    parts = {part: stream not in outputs.missing for stream, part in PART_OF.items()}
    judged = {"fake": any(parts.values()), **parts}
    if not judged["fake"]:
        return dict.fromkeys(judged)
    found = calibration.probabilities(networks.fusion(outputs.features()[None])[0])
    return {name: float(p) if there else None for (name, there), p in zip(judged.items(), found, strict=True)}


def _percent_judged(stream: ClipStream) -> str:
    """Of a sample."""
    percent = 100 * sum(end - start for start, end in stream.judged) / (stream.expected_seconds or math.inf)
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1f} %"


def _sample_warning(stream: ClipStream) -> Iterator[str]:
    if stream.judged:
        judged = sum(end - start for start, end in stream.judged)
        stretches = "1 stretch" if len(stream.judged) == 1 else f"{len(stream.judged)} stretches"
        yield (
            f"a sample was judged: {stretches}, {judged:.0f} of {stream.expected_seconds:.0f} s "
            f"({_percent_judged(stream)}); --sample 0 judges all of it"
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


def _voice_warning(outputs: StreamOutputs, config: AudioConfig) -> Iterator[str]:
    least = config.stretch_seconds or config.window_seconds
    if outputs.stretches and outputs.speech_seconds < least:
        yield (
            f"the voice was judged by {outputs.speech_seconds:.1f} s of speech, less than the model learned from "
            f"({least:g} s): it errs more often"
        )


def _timed(half: Callable[[StreamOutputs, Clip], None], outputs: StreamOutputs, clip: Clip) -> float:
    """Wall seconds of `half` of the networks on one clip."""
    began = time.perf_counter()
    half(outputs, clip)
    return time.perf_counter() - began


def _sync_score(outputs: StreamOutputs) -> SyncScore | None:
    speaker = outputs.sync_reading()
    if speaker is None:
        return None
    track, reading = speaker
    return SyncScore(round(reading.offset_seconds, 3), reading.confidence, reading.min_distance, track)


def _curve(cells: dict[int, float], score: float, track_id: int | None) -> Curve:
    """Each second's value at its middle."""
    seconds = sorted(cells)
    times, values = (second + 0.5 for second in seconds), (round(cells[second], 4) for second in seconds)
    return Curve(tuple(times), tuple(values), score, track_id)


def _track_summaries(outputs: StreamOutputs) -> Iterator[TrackSummary]:
    for track, points in sorted(outputs.boxes.items()):
        box = np.median([box for _, box in points], axis=0).round(1).tolist()
        seconds = [second for second, _ in points]
        yield TrackSummary(track, round(min(seconds), 2), round(max(seconds), 2), tuple(box))
