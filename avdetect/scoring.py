"""Clips -> stream outputs, whatever runs the networks.

The Detector passes ONNX Runtime sessions and training passes torch modules; everything between a Clip and the fusion's
features is this one piece of code. Of a clip that was scored only logits, boxes and per-second sums are kept: about a
megabyte for each hour of a face.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from avdetect import pooling
from avdetect.audio import FLOOR, MIN_AUDIO_SECONDS, WHISPER_FLOOR, log_mel
from avdetect.config import AudioConfig, FaceConfig, ModelConfig
from avdetect.faces.mouth import hidden_mouths
from avdetect.pooling import SyncDistances, SyncReading
from avdetect.speech import MIN_SPEECH_SECONDS, enough_speech, level, speech_mask
from avdetect.types import FPS, HOP, MELS_PER_FRAME, SAMPLE_RATE, Bool, Clip, Float, UInt8, Waveform

SYNC_FRAMES = 5  # frames of a sync window: 0.2 s
SYNC_MELS = SYNC_FRAMES * MELS_PER_FRAME
HIDDEN = "the mouth seems hidden"  # why a face is not judged


class Networks(Protocol):
    """The four networks that run on crops and log-mels. Arrays in, float32 arrays out; N may be any positive number."""

    def visual(self, crops: UInt8) -> Float:
        """(N, S, S, 3) RGB -> (N,) logits."""

    def audio(self, mels: Float) -> Float:
        """(N, T, N_MELS) -> (N,) logits."""

    def mouth(self, mouths: UInt8) -> Float:
        """(N, 5, M, M) luma -> (N, E) unit vectors."""

    def voice(self, mels: Float) -> Float:
        """(N, 20, N_MELS) -> (N, E) unit vectors."""


@dataclass
class StreamOutputs:
    """What the networks said of one file; `StreamScorer.start` begins and `StreamScorer.finish` completes it."""

    pooling: str = "confident"  # of a track's frame logits
    visual: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # (seconds, logit)
    audio: list[tuple[float, float]] = field(default_factory=list)  # (seconds, logit)
    sync: dict[int, list[SyncDistances]] = field(default_factory=lambda: defaultdict(list))  # by track id, like visual
    boxes: dict[int, list[tuple[float, Float]]] = field(default_factory=lambda: defaultdict(list))  # (seconds, XYXY)
    hidden: dict[int, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )  # seconds of unseen mouths, not judged
    readings: dict[int, SyncReading] = field(default_factory=dict)
    speech_seconds: float = 0.0  # of the sound that was heard
    missing: dict[str, str] = field(default_factory=dict)  # stream -> reason

    def is_hidden(self, track: int) -> bool:
        """Whether the mouth of a track seems hidden most of the time."""
        return 2 * len(self.hidden.get(track, ())) > len(self.boxes.get(track, ()))

    def track_logits(self) -> dict[int, Float]:
        """Frame logits (F,) of each track."""
        return {track: np.array([logit for _, logit in points], np.float32) for track, points in self.visual.items()}

    def visual_logit(self) -> float | None:
        return pooling.pool_tracks(self.track_logits(), self.pooling)

    def audio_logit(self) -> float | None:
        return pooling.confident_mean(np.array([v for _, v in self.audio], np.float32)) if self.audio else None

    def sync_reading(self) -> tuple[int, SyncReading] | None:
        """The track that fits the voice best: with several people in the picture, the one who speaks."""
        return max(self.readings.items(), key=lambda item: item[1].confidence, default=None)

    def features(self) -> Float:
        """The fusion's input, `pooling.FEATURES`."""
        reading = self.sync_reading()
        return pooling.fusion_features(self.visual_logit(), self.audio_logit(), reading[1] if reading else None)


def audio_windows(waveform: Waveform, speech: Bool, config: AudioConfig) -> tuple[list[float], list[Float]]:
    """Centres in seconds and log-mels (T, N_MELS) of the windows that hold enough speech; the last ends with the
    waveform.

    speech: `speech_mask` of the waveform. One that is shorter than a window is repeated to fill one, as in training.
    """
    samples = waveform.samples
    size, stride = round(config.window_seconds * SAMPLE_RATE), round(config.stride_seconds * SAMPLE_RATE)
    if len(samples) < MIN_AUDIO_SECONDS * SAMPLE_RATE:
        return [], []
    starts = list(range(0, max(1, len(samples) - size + 1), stride))
    if len(samples) > size and starts[-1] + size < len(samples):
        starts.append(len(samples) - size)
    centres, mels = [], []
    for start in starts:
        window, mask = samples[start : start + size], speech[start // HOP : (start + size) // HOP]
        if enough_speech(mask):
            centres.append(waveform.start_seconds + (start + len(window) / 2) / SAMPLE_RATE)
            mels.append(audio_mel(window, mask, config))
    return centres, mels


def audio_mel(window: Float, speech: Bool, config: AudioConfig) -> Float:
    """(num_samples,) and its `speech_mask` -> (T, N_MELS) of a whole window: what the voice's network is given."""
    size = round(config.window_seconds * SAMPLE_RATE)
    return log_mel(np.resize(level(window, speech), size), FLOOR if config.encoder == "cnn" else WHISPER_FLOOR)


def voice_windows(waveform: Waveform, speech: Bool) -> tuple[Float, Bool]:
    """Every 0.2 s window that begins on a video frame: (V, 20, N_MELS) and (V,) whether half of it is `speech`."""
    mels = log_mel(level(waveform.samples, speech))
    count = max(0, len(mels) // MELS_PER_FRAME - SYNC_FRAMES + 1)
    if count == 0:
        return np.zeros((0, SYNC_MELS, mels.shape[1]), np.float32), np.zeros(0, bool)
    windows = np.lib.stride_tricks.sliding_window_view(mels, SYNC_MELS, axis=0)[::MELS_PER_FRAME][:count]
    heard = np.lib.stride_tricks.sliding_window_view(speech, SYNC_MELS)[::MELS_PER_FRAME][:count].sum(1)
    return np.ascontiguousarray(windows.transpose(0, 2, 1)), 2 * heard >= SYNC_MELS


def mouth_windows(mouth_crops: UInt8) -> UInt8:
    """(T, M, M) -> (T - 4, 5, M, M)."""
    windows = np.lib.stride_tricks.sliding_window_view(mouth_crops, SYNC_FRAMES, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 3, 1, 2))


class StreamScorer:
    """Feeds a file's clips, in order, through the networks."""

    def __init__(self, networks: Networks, config: ModelConfig, crop_margin: float = FaceConfig.crop_margin) -> None:
        """crop_margin: `FaceConfig.crop_margin` of the clips."""
        self.networks, self.config, self.crop_margin = networks, config, crop_margin

    def start(self) -> StreamOutputs:
        """Empty outputs, for a new file."""
        return StreamOutputs(self.config.visual.pooling)

    def add(self, outputs: StreamOutputs, clip: Clip) -> None:
        """Add what the networks say of `clip` to `outputs`."""
        self.look(outputs, clip)
        self.listen(outputs, clip)

    def look(self, outputs: StreamOutputs, clip: Clip) -> None:
        """The half of `add` that is about the picture alone; it may run beside the other half.

        Faces whose mouth is hidden are not judged: no network has learned from any, and a cover looks forged to them.
        """
        for track in clip.tracks if "visual" in self.config.streams else ():
            if not len(track.face_crops):
                continue
            seconds = track.face_frames / FPS
            hidden = hidden_mouths(track.face_crops, track.boxes, track.landmarks, self.crop_margin)
            outputs.boxes[track.track_id] += zip(seconds.tolist(), track.boxes, strict=True)
            if hidden.any():
                outputs.hidden[track.track_id] += seconds[hidden].tolist()
            if not hidden.all():
                logits = self.networks.visual(track.face_crops[~hidden])
                outputs.visual[track.track_id] += zip(seconds[~hidden].tolist(), logits.tolist(), strict=True)

    def listen(self, outputs: StreamOutputs, clip: Clip) -> None:
        """The half of `add` that needs the sound: the voice, and its match with the mouths."""
        if clip.waveform is None:
            return
        speech = speech_mask(clip.waveform.samples)
        outputs.speech_seconds += int(speech.sum()) * HOP / SAMPLE_RATE
        if "audio" in self.config.streams:
            centres, mels = audio_windows(clip.waveform, speech, self.config.audio)
            if mels:
                outputs.audio += zip(centres, self.networks.audio(np.stack(mels)).tolist(), strict=True)
        if "sync" in self.config.streams:
            self._add_sync(outputs, clip, clip.waveform, speech)

    def _add_sync(self, outputs: StreamOutputs, clip: Clip, waveform: Waveform, speech: Bool) -> None:
        tracks = [track for track in clip.tracks if len(track.mouth_crops) >= SYNC_FRAMES]
        windows, valid = voice_windows(waveform, speech)
        if not tracks or not valid.any():
            return
        voice = self.networks.voice(windows)
        first_frame = round(waveform.start_seconds * FPS)
        for track in tracks:
            mouth = self.networks.mouth(mouth_windows(track.mouth_crops))
            outputs.sync[track.track_id].append(
                pooling.sync_distances(mouth, track.first_frame, voice, first_frame, valid, self.config.sync.max_offset)
            )

    def finish(self, outputs: StreamOutputs, missing: dict[str, str]) -> StreamOutputs:
        """Read the sync and name the streams that say nothing; `missing` maps "video" and "audio" to why the input
        lacks them."""
        joined = {track: SyncDistances.join(parts) for track, parts in outputs.sync.items()}
        read = {track: r for track, d in joined.items() if (r := pooling.read_sync(d)) is not None}
        hidden = {track for track in outputs.boxes if outputs.is_hidden(track)}
        outputs.readings = {track: r for track, r in read.items() if track not in hidden}
        for track in hidden:  # where a mouth was seen after all, it was most likely a cover that was not recognised
            outputs.visual.pop(track, None)
        no_face = HIDDEN if hidden else "no face"
        if outputs.visual_logit() is None:
            outputs.missing["visual"] = missing.get("video", no_face)
        unheard = None if outputs.speech_seconds else missing.get("audio", "no speech")
        if outputs.audio_logit() is None:
            outputs.missing["audio"] = unheard or f"less than {MIN_SPEECH_SECONDS} s of speech"
        if outputs.sync_reading() is None:
            reason = missing.get("video") or unheard
            if not reason:
                reason = no_face if "visual" in outputs.missing or read else "less than 1 s of a face with voice"
            outputs.missing["sync"] = reason
        for stream, article in (("visual", "a"), ("audio", "an"), ("sync", "a")):
            if stream not in self.config.streams:
                outputs.missing[stream] = f"the model was trained without {article} {stream} stream"
        return outputs
