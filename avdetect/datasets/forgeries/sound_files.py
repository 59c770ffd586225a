"""Voices, and their match with the picture, forged inside a segment of a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from avdetect.audio import SILENCE_RMS, rms
from avdetect.datasets.forgeries.audio import AUDIO, TAKES_OTHER
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL, NEEDS_OTHER
from avdetect.datasets.forgeries.contact import sound_row
from avdetect.datasets.forgeries.files import write_sound
from avdetect.datasets.forgeries.inputs import Input, Unfit
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, Job, segments_to_try
from avdetect.types import SAMPLE_RATE, Float

FADE_SAMPLES = 160  # between the voice and its forgery, inside the segment


def sound_forger(job: Job, index: int, count: int) -> Callable[[str], None]:
    """Find a segment with a voice once; the function returned forges it by a method. Raises Unfit, LimitError."""
    source = job.inputs[index]
    samples = source.sound()
    start, stop = _voice_segment(job, source, samples, job.rng(index, count, 0))

    def forge(method: str) -> None:
        donor = _other_voice(job, index, count) if method in NEEDS_OTHER | TAKES_OTHER else None
        if method in NEEDS_OTHER and donor is None:
            raise Unfit("no other input has a voice; name a second INPUT")
        other = None if donor is None else job.inputs[donor].sound()
        result = {**AUDIO, **AUDIOVISUAL}[method](samples[start:stop], job.rng(index, count, method), other)
        if not result.segments:
            raise Unfit(f"{source.path.name}: nothing is heard in the segment")
        if donor is not None:
            job.shared.add((index, donor))
        forged = samples.copy()
        forged[start:stop] = _faded(samples[start:stop], result.samples, start > 0, stop < len(samples))
        segments = [(start / SAMPLE_RATE + a, start / SAMPLE_RATE + b) for a, b in result.segments]
        job.write(
            index,
            count,
            method,
            segments,
            lambda target: write_sound(forged, source.reader.info, target),
            partial(sound_row, original=samples, forged=forged, segments=segments),
        )

    return forge


def _voice_segment(job: Job, source: Input, samples: Float, rng: np.random.Generator) -> tuple[int, int]:
    """First and last + 1 sample of a segment with a voice in it. Raises Unfit."""
    duration = len(samples) / SAMPLE_RATE
    for segment in segments_to_try(job, lambda: duration, rng):
        start, stop = (min(round(seconds * SAMPLE_RATE), len(samples)) for seconds in segment)
        if stop - start >= min(SHORTEST_SECONDS, duration) * SAMPLE_RATE and rms(samples[start:stop]) > SILENCE_RMS:
            return start, stop
    where = "its random segments" if job.segment is None else f"{job.segment[0]:g}-{job.segment[1]:g} s"
    raise Unfit(f"{source.path.name}: no voice in {where}")


def _other_voice(job: Job, index: int, count: int) -> int | None:
    """Another input with at least a second of sound."""
    for other in job.others(index, job.rng(index, count, 1)):
        if job.inputs[other].reader.info.audio is not None:
            samples = job.inputs[other].sound()
            if len(samples) >= SAMPLE_RATE and rms(samples) > SILENCE_RMS:
                return other
    return None


def _faded(before: Float, after: Float, at_start: bool, at_end: bool) -> Float:
    """`after`, fading from and to `before` over FADE_SAMPLES at its ends."""
    share = np.ones(len(after), np.float32)
    ramp = (np.arange(FADE_SAMPLES, dtype=np.float32) + 0.5) / FADE_SAMPLES
    if at_start:
        share[:FADE_SAMPLES] = ramp
    if at_end:
        share[-FADE_SAMPLES:] = np.minimum(share[-FADE_SAMPLES:], ramp[::-1])
    return (before + (after - before) * share).astype(np.float32)
