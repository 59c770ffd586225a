"""Voices, and their match with the picture, forged inside a segment of a file."""

from collections.abc import Callable

import numpy as np

from avdetect.audio import SILENCE_RMS, rms
from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL, NEEDS_OTHER, TAKES_OTHER, overlay
from avdetect.datasets.forgeries.files import write_sound
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, Input, Job, Unfit
from avdetect.types import SAMPLE_RATE, Float

FADE_SAMPLES = 160  # between the voice and its forgery, inside the segment


def sound_forger(job: Job, source: Input, count: int) -> Callable[[str], None]:
    """Find a segment with a voice once; the function returned forges it by a method. Raises Unfit, LimitError."""
    start, stop = _voice_segment(job, source, job.rng(source, count, "segment"))

    def forge(method: str) -> None:
        other = _other_voice(job, source, count) if method in TAKES_OTHER else None
        if method in NEEDS_OTHER and other is None:
            raise Unfit("no other input has a voice; name a second INPUT")
        result = {**AUDIO, **AUDIOVISUAL}[method](source.sound[start:stop], job.rng(source, count, method), other)
        if not result.segments:
            raise Unfit(f"{source.path.name}: nothing is heard in the segment")
        job.mixed |= other is not None
        forged = source.sound.copy()
        overlay(forged, start, result.samples, FADE_SAMPLES)
        segments = [(start / SAMPLE_RATE + a, start / SAMPLE_RATE + b) for a, b in result.segments]
        job.write(source, count, method, segments, lambda target: write_sound(forged, source.reader.info, target))

    return forge


def _voice_segment(job: Job, source: Input, rng: np.random.Generator) -> tuple[int, int]:
    """First and last + 1 sample of a segment with a voice in it. Raises Unfit."""
    samples = source.sound
    least = min(round(SHORTEST_SECONDS * SAMPLE_RATE), len(samples))
    for segment in job.segments_to_try(source, rng):
        start, stop = (min(round(seconds * SAMPLE_RATE), len(samples)) for seconds in segment)
        if stop - start >= least and rms(samples[start:stop]) > SILENCE_RMS:
            return start, stop
    where = "its random segments" if job.segment is None else f"{job.segment[0]:g}-{job.segment[1]:g} s"
    raise Unfit(f"{source.path.name}: no voice in {where}")


def _other_voice(job: Job, source: Input, count: int) -> Float | None:
    """The sound of another input, if one has a second of it."""
    for other in job.others(source, count):
        has_voice = other.reader.info.audio is not None and len(other.sound) >= SAMPLE_RATE
        if has_voice and rms(other.sound) > SILENCE_RMS:
            return other.sound
    return None
