"""Clips -> stream outputs, whatever runs the networks.

The Detector passes ONNX Runtime sessions and training passes torch modules; everything between a Clip and the fusion's
features is this one piece of code. Of a clip that was scored only logits, boxes and per-second sums are kept: about
five megabytes for each hour of a face and a voice.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avdetect import pooling
from avdetect.audio import FLOOR, MIN_AUDIO_SECONDS, WHISPER_FLOOR, log_mel
from avdetect.config import AudioConfig, FaceConfig, ModelConfig, SyncConfig
from avdetect.faces.mouth import hidden_mouths
from avdetect.pooling import SyncDistances, SyncReading
from avdetect.speech import MIN_SPEECH_SECONDS, enough_speech, level, speech_mask
from avdetect.types import (
    FPS,
    HOP,
    MELS_PER_FRAME,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Bool,
    Clip,
    FaceTrack,
    Float,
    UInt8,
    Waveform,
)

WINDOWS_AT_ONCE = 4  # of speech: a second of their frames is a third of a megabyte
HIDDEN = "the mouth seems hidden"  # why a face is not judged
# Longer side of the smallest face that is judged by its pictures, in pixels. Below 110, fakes and real faces are hardly
# told apart (AUC .64, and one real face in six looks forged); the stream has learned from none below this.
MIN_FACE_SIDE = 64
HELD_SECONDS = 3.0  # a judged picture says nothing of what is further away
STAND_STILL = "the lips stand still while there is speech: a still picture, or somebody else speaks"  # why no match is
LEARNED_NOTHING = "the model learned nothing of it"


class Networks(Protocol):
    """The networks that run on crops, on log-mels, and on what `speech` makes of these: frames (N, T', L, C). Arrays
    in, float32 arrays out; N and T may be any positive number."""

    def visual(self, crops: UInt8) -> Float:
        """(N, S, S, 3) RGB -> (N,) logits."""

    def speech(self, mels: Float) -> Float:
        """(N, T, N_MELS) -> frames."""

    def audio(self, frames: Float) -> Float:
        """Frames -> (N,) logits."""

    def mouth(self, mouths: UInt8) -> Float:
        """(N, T, M, M) luma -> (N, T - R + 1, E) unit vectors, the first of which is centred on frame R // 2."""

    def voice(self, frames: Float) -> Float:
        """Frames -> (N, T / MELS_PER_FRAME, E) unit vectors, one a video frame."""


@dataclass
class StreamOutputs:
    """What the networks said of one file; `StreamScorer.start` begins and `StreamScorer.finish` completes it."""

    pooling: str = "confident"  # of frame logits
    visual: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # (seconds, logit)
    audio: list[float] = field(default_factory=list)  # logits of windows
    stretches: list[tuple[float, float, float]] = field(default_factory=list)  # (start, end, logit) of the voice
    sync: dict[int, list[SyncDistances]] = field(default_factory=lambda: defaultdict(list))  # by track id, like visual
    boxes: dict[int, list[tuple[float, Float]]] = field(default_factory=lambda: defaultdict(list))  # (seconds, XYXY)
    hidden: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # seconds of mouths not seen
    small_side: float = 0.0  # of the largest face that was too small to judge
    readings: dict[int, SyncReading] = field(default_factory=dict)
    speech_seconds: float = 0.0  # of the sound that was heard
    missing: dict[str, str] = field(default_factory=dict)  # stream -> reason

    def is_hidden(self, track: int) -> bool:
        """Whether the mouth of a track seems hidden most of the time."""
        return 2 * len(self.hidden.get(track, ())) > len(self.boxes.get(track, ()))

    def track_logits(self) -> dict[int, float]:
        """A logit a track."""
        frames = {t: np.array([logit for _, logit in points], np.float32) for t, points in self.visual.items()}
        return pooling.track_logits(frames, self.pooling)

    def face_points(self, track: int) -> list[tuple[float, float]]:
        """(seconds, logit) of every picture of a judged track whose mouth is seen, by the judged one next to it: few of
        a clip are judged, each for the time around it."""
        times, logits = np.array(sorted(self.visual[track])).T
        hidden = set(self.hidden.get(track, ()))
        seconds = np.array([second for second, _ in self.boxes[track] if second not in hidden])
        nearest = np.searchsorted((times[1:] + times[:-1]) / 2, seconds)
        near = np.abs(seconds - times[nearest]) <= HELD_SECONDS
        return list(zip(seconds[near].tolist(), logits[nearest][near].tolist(), strict=True))

    def visual_logit(self) -> float | None:
        """That of the most suspicious track, for one forged face makes a forged video."""
        return max(self.track_logits().values(), default=None)

    def audio_logit(self) -> float | None:
        return pooling.confident_mean(np.array(self.audio, np.float32)) if self.audio else None

    def sync_reading(self) -> tuple[int, SyncReading] | None:
        """The track that fits the voice best: with several people in the picture, the one who speaks."""
        return max(self.readings.items(), key=lambda item: item[1].confidence, default=None)

    def features(self) -> Float:
        """The fusion's input, `pooling.FEATURES`."""
        reading = self.sync_reading()
        return pooling.fusion_features(self.visual_logit(), self.audio_logit(), reading[1] if reading else None)


@dataclass(frozen=True, eq=False)
class SpeechWindow:
    """What the speech encoder is given at a time."""

    start_frame: int  # video frames from the beginning of the sound
    frames: int  # whole video frames of sound in it: what of `mel` is behind them is repetition
    start_seconds: float  # on the file's clock
    mel: Float  # (T, N_MELS)


def audio_windows(waveform: Waveform, speech: Bool, config: AudioConfig) -> list[SpeechWindow]:
    """The windows that hold enough speech, each from the beginning of a video frame on; the last ends less than a video
    frame before the waveform does. A waveform that is shorter than a window is repeated to fill one, as in training.

    speech: `speech_mask` of the waveform.
    """
    samples = waveform.samples
    size, stride = round(config.window_seconds * SAMPLE_RATE), max(1, round(config.stride_seconds * FPS))
    if len(samples) < MIN_AUDIO_SECONDS * SAMPLE_RATE:
        return []
    last = max(0, len(samples) - size) // SAMPLES_PER_FRAME
    windows = []
    for frame in sorted({*range(0, last, stride), last}):
        start = frame * SAMPLES_PER_FRAME
        window, mask = samples[start : start + size], speech[start // HOP : (start + size) // HOP]
        if enough_speech(mask):
            mel = audio_mel(window, mask, config)
            seconds = waveform.start_seconds + frame / FPS
            windows.append(SpeechWindow(frame, len(window) // SAMPLES_PER_FRAME, seconds, mel))
    return windows


def voice_stretches(
    networks: Networks, window: SpeechWindow, frames: Float, logit: float, speech: Bool, config: AudioConfig
) -> list[tuple[float, float, float]]:
    """(start, end, logit), in seconds of the file's clock, of the stretches of a window that hold enough speech: what a
    curve of the voice is made of. One begins every quarter of their length, the last ends with the window. A window
    without any, or too short for two, counts as a whole.

    frames: (T', L, C) and `logit` are the window's. speech: `speech_mask` of the whole sound.
    """
    length = round((config.stretch_seconds or config.window_seconds) * FPS)
    last = max(0, window.frames - length)
    begins = []
    for begin in sorted({*range(0, last, max(1, length // 4)), last}):
        first = (window.start_frame + begin) * MELS_PER_FRAME
        if enough_speech(speech[first : first + length * MELS_PER_FRAME]):
            begins.append(begin)
    if not last or not begins:
        return [(window.start_seconds, window.start_seconds + window.frames / FPS, logit)]
    steps = len(frames) / (config.window_seconds * FPS)  # of the encoder, a video frame
    parts = np.stack([frames[round(b * steps) :][: round(length * steps)] for b in begins])
    starts = [window.start_seconds + begin / FPS for begin in begins]
    return [(s, s + length / FPS, v) for s, v in zip(starts, networks.audio(parts).tolist(), strict=True)]


def audio_mel(window: Float, speech: Bool, config: AudioConfig) -> Float:
    """(num_samples,) and its `speech_mask` -> (T, N_MELS) of a whole window: what the speech encoder is given."""
    size = round(config.window_seconds * SAMPLE_RATE)
    return log_mel(np.resize(level(window, speech), size), FLOOR if config.encoder == "cnn" else WHISPER_FLOOR)


def speech_frames(
    networks: Networks, windows: Sequence[SpeechWindow]
) -> Iterator[tuple[Sequence[SpeechWindow], Float]]:
    """A few windows at a time, which bounds the memory, and their frames (n, T', L, C)."""
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        some = windows[first : first + WINDOWS_AT_ONCE]
        yield some, networks.speech(np.stack([window.mel for window in some]))


def spoken_frames(speech: Bool) -> Bool:
    """`speech_mask` (num_samples // HOP,) -> (V,) whether a whole video frame is speech for half of its time."""
    count = len(speech) // MELS_PER_FRAME
    return 2 * speech[: count * MELS_PER_FRAME].reshape(count, MELS_PER_FRAME).sum(1) >= MELS_PER_FRAME


def voice_by_frame(windows: Sequence[SpeechWindow], embeddings: Sequence[Float], speech: Bool) -> tuple[Float, Bool]:
    """(V, E) the voice of each video frame of the sound, and (V,) whether it is speech that a window covers.

    embeddings: (F, E) of each of the `windows`, of which there must be one. Where windows overlap, the frame is taken
    from the one in whose middle it stands nearest: there the encoder has heard as much before it as behind it.
    """
    spoken = spoken_frames(speech)
    voice = np.zeros((len(spoken), embeddings[0].shape[1]), np.float32)
    nearest = np.full(len(spoken), np.inf)
    for window, found in zip(windows, embeddings, strict=True):
        place = np.arange(min(window.frames, len(found)))
        frames = window.start_frame + place
        away = np.abs(place - (window.frames - 1) / 2)
        nearer = away < nearest[frames]
        voice[frames[nearer]], nearest[frames[nearer]] = found[place[nearer]], away[nearer]
    return voice, spoken & np.isfinite(nearest)


def mouths_of(networks: Networks, track: FaceTrack, config: SyncConfig) -> tuple[int, Float]:
    """The frame that the first mouth embedding of a track of `seen_mouths` belongs to, and (W, E), one a frame."""
    return track.first_frame + config.mouth_frames // 2, networks.mouth(track.mouth_crops[None])[0]


def spread(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the numbers (N,), evenly spread; 0: all of them."""
    if not count or len(numbers) <= count:
        return numbers
    return numbers[((np.arange(count) + 0.5) * len(numbers) / count).astype(int)]


def seen_mouths(clip: Clip, config: SyncConfig) -> list[FaceTrack]:
    """The tracks that are long enough for a mouth embedding."""
    return [track for track in clip.tracks if len(track.mouth_crops) >= config.mouth_frames]


class StreamScorer:
    """Feeds a file's clips, in order, through the networks. faces: how the faces of the clips were cut."""

    def __init__(self, networks: Networks, config: ModelConfig, faces: FaceConfig | None = None) -> None:
        self.networks, self.config, self.faces = networks, config, faces or FaceConfig()
        self._judged = tuple(name for name in config.streams if name not in config.fusion.silent)

    def start(self) -> StreamOutputs:
        """Empty outputs, for a new file."""
        return StreamOutputs(self.config.visual.pooling)

    def add(self, outputs: StreamOutputs, clip: Clip) -> None:
        """Add what the networks say of `clip`, picture and sound; each half may also run beside the other."""
        self.score_video(outputs, clip)
        self.score_audio(outputs, clip)

    def score_video(self, outputs: StreamOutputs, clip: Clip) -> None:
        """What is about the picture alone. Faces whose mouth is hidden are not judged: no network has learned from any,
        and a cover looks forged to them. Nor are small ones."""
        for track in clip.tracks if "visual" in self._judged else ():
            if not len(track.face_crops):
                continue
            seconds = track.face_frames / FPS
            hidden = hidden_mouths(track.face_crops, track.boxes, track.landmarks, self.faces.crop_margin)
            outputs.boxes[track.track_id] += zip(seconds.tolist(), track.boxes, strict=True)
            if hidden.any():
                outputs.hidden[track.track_id] += seconds[hidden].tolist()
            sides = (track.boxes[:, 2:] - track.boxes[:, :2]).max(axis=1)
            small = ~hidden & (sides < MIN_FACE_SIDE)
            outputs.small_side = max(outputs.small_side, float(sides[small].max(initial=0.0)))
            judged = spread(np.flatnonzero(~hidden & ~small), self.config.visual.crops)
            if len(judged):
                logits = self.networks.visual(track.face_crops[judged])
                outputs.visual[track.track_id] += zip(seconds[judged].tolist(), logits.tolist(), strict=True)

    def score_audio(self, outputs: StreamOutputs, clip: Clip) -> None:
        """What needs the sound: the voice, and its match with the mouths."""
        if clip.waveform is None:
            return
        speech = speech_mask(clip.waveform.samples)
        outputs.speech_seconds += int(speech.sum()) * HOP / SAMPLE_RATE
        judged = "audio" in self._judged
        tracks = seen_mouths(clip, self.config.sync) if "sync" in self._judged else []
        windows = audio_windows(clip.waveform, speech, self.config.audio) if judged or tracks else []
        embeddings: list[Float] = []
        for some, frames in speech_frames(self.networks, windows):
            if judged:
                logits = self.networks.audio(frames).tolist()
                outputs.audio += logits
                for window, own, logit in zip(some, frames, logits, strict=True):
                    found = voice_stretches(self.networks, window, own, logit, speech, self.config.audio)
                    outputs.stretches += found
            if tracks:
                embeddings += list(self.networks.voice(frames))
        if not embeddings:
            return
        voice, valid = voice_by_frame(windows, embeddings, speech)
        voice_frame, sync = round(clip.waveform.start_seconds * FPS), self.config.sync
        for track in tracks if valid.any() else ():
            mouth_frame, mouth = mouths_of(self.networks, track, sync)
            distances = pooling.sync_distances(mouth, mouth_frame, voice, voice_frame, valid, sync.max_offset)
            outputs.sync[track.track_id].append(distances)

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
        if outputs.small_side and not hidden:
            no_face = f"face too small to judge ({outputs.small_side:.0f} px; needs {MIN_FACE_SIDE})"
        if outputs.visual_logit() is None:
            outputs.missing["visual"] = missing.get("video", no_face)
        unheard = None if outputs.speech_seconds else missing.get("audio", "no speech")
        if outputs.audio_logit() is None:
            outputs.missing["audio"] = unheard or f"less than {MIN_SPEECH_SECONDS} s of speech"
        if outputs.sync_reading() is None:
            reason = missing.get("video") or unheard
            if not reason and any(d.stands_still() for track, d in joined.items() if track not in hidden):
                reason = STAND_STILL
            needed = (pooling.MIN_SYNC_WINDOWS + self.config.sync.mouth_frames - 1) / FPS
            too_short = f"less than {needed:.1f} s of a face with voice"
            outputs.missing["sync"] = reason or (no_face if "visual" in outputs.missing or read else too_short)
        for stream, cause in (("visual", "face"), ("audio", "voice"), ("sync", "match")):
            if stream not in self.config.streams:
                outputs.missing[stream] = f"the model was trained without the {cause}"
            elif stream not in self._judged:
                outputs.missing[stream] = LEARNED_NOTHING
        return outputs
