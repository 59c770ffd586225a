"""Many channels become one.

A file's channels are averaged, as everybody does: that is the sound that a listener with one loudspeaker has, and what
the voice's network learned from. Two exceptions. Ambisonics: its channel W is all of the sound already, the others are
differences. A mean that cancels: where a microphone is wired out of phase, or where one channel of many speaks, the
mean loses more than 10 dB against the strongest channel. From the first half second on where that happens, that channel
is heard instead, to the end of the file: no going back and forth, and a fade of half a second between them.

The mean is taken by ffmpeg, at the file's own rate, and piped beside the channels. LFE (rumble) is left out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from avdetect._media.info import AudioStream
from avdetect.types import SAMPLE_RATE, Float

MOST_CHANNELS = 63  # of a file with more, these first are heard: `pan` knows no more
PEAK = 16.0  # full scale is 1
BLOCK = SAMPLE_RATE // 2
CANCELS = 10 ** (-10 / 10)  # energy of the mean, of the strongest channel's; independent channels have a half
AUDIBLE = 10 ** (-60 / 10)  # energy of the strongest channel, of full scale: what is below may do as it likes
LFE = {"2.1": 2} | dict.fromkeys(("3.1", "4.1", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)"), 3)  # layout -> channel


def heard_channels(audio: AudioStream) -> list[int]:
    if audio.channel_layout.startswith("ambisonic"):
        return [0]
    return [n for n in range(min(audio.channels, MOST_CHANNELS)) if n != LFE.get(audio.channel_layout)]


def piped_channels(audio: AudioStream) -> int:
    """How many channels the pipe has: the mean, and if it is of several those."""
    count = len(heard_channels(audio))
    return count + 1 if count > 1 else 1


def layout(audio: AudioStream) -> str:
    """The layout of the pipe, in ffmpeg's words: so many channels, of no place in the room."""
    count = piped_channels(audio)
    return "mono" if count == 1 else f"{count}C"


def pan(audio: AudioStream) -> str | None:
    """What ffmpeg's filter `pan` makes of the channels; None where there is one."""
    if audio.channels == 1:
        return None
    heard = heard_channels(audio)
    mean = "+".join(f"c{number}" for number in heard)  # "<": so that their weights sum up to 1
    channels = [f"c{place}<c{number}" for place, number in enumerate(heard, 1)] if len(heard) > 1 else []
    return "|".join((layout(audio), f"c0<{mean}", *channels))


class Mix:
    """One channel out of what `fill` gives: (n, 1 + channels) float32, the mean first."""

    def __init__(self, fill: Callable[[Any], int], channels: int) -> None:
        self._fill, self._channels = fill, channels
        self._waiting = np.empty(0, np.float32)
        self._ended = False
        self._strongest: int | None = None  # what is heard since the mean cancelled

    def read(self, samples: Float) -> int:
        """Fill `samples`; how many came, fewer only at the end."""
        count = 0
        while count < len(samples) and (len(self._waiting) or not self._ended):
            if not len(self._waiting):
                self._waiting = self._block()
            part = self._waiting[: len(samples) - count]
            samples[count : count + len(part)] = part
            self._waiting = self._waiting[len(part) :]
            count += len(part)
        return count

    def _block(self) -> Float:
        block = np.empty((BLOCK, self._channels), np.float32)
        rows = self._fill(block) // block[0].nbytes
        self._ended = rows < BLOCK
        # No recording holds NaN, or what is more than 24 dB above full scale.
        block = np.clip(np.nan_to_num(block[:rows], nan=0.0), -PEAK, PEAK)
        if self._channels == 1 or not rows:
            return block[:, 0]
        if self._strongest is not None:
            return block[:, self._strongest]
        energy = np.square(block, dtype=np.float64).mean(axis=0)
        loudest = 1 + int(energy[1:].argmax())
        if energy[loudest] < AUDIBLE or energy[0] > CANCELS * energy[loudest]:
            return block[:, 0]
        self._strongest = loudest
        fade = np.linspace(0, 1, rows, dtype=np.float32)
        return block[:, 0] * (1 - fade) + block[:, loudest] * fade
