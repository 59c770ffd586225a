"""Which of several sound tracks is judged: the one in which somebody speaks.

Screen recorders put the desktop's sound before the microphone, films a commentary behind the dialogue. Of several, each
is heard until it holds ENOUGH_SECONDS of speech, or to its end, since a microphone may be silent for long.
"""

from avdetect.errors import LimitError, MediaError
from avdetect.media import MediaReader, ranked
from avdetect.speech import speech_mask
from avdetect.types import HOP, SAMPLE_RATE

ENOUGH_SECONDS = 3.0  # of speech: tracks with as much are equals
MOST_TRACKS = 16  # that are heard: broadcasters' recorders write as many
CHUNK_SECONDS = 10.0


def spoken_track(reader: MediaReader, start_seconds: float, duration_seconds: float | None) -> int | None:
    """The audio track (from 1) with the most speech in this window; of equals the one that would be read anyway. None
    where no choice is left: one track, or none that can be decoded. Raises LimitError, ToolError."""
    candidates = ranked(reader.info.audios)[:MOST_TRACKS]
    best, most = None, -1.0
    for stream in candidates if len(candidates) > 1 else ():
        seconds = _speech_seconds(reader, stream.track, start_seconds, duration_seconds)
        if seconds > most:
            best, most = stream.track, seconds
        if most >= ENOUGH_SECONDS:
            break
    return best


def _speech_seconds(reader: MediaReader, track: int, start_seconds: float, duration_seconds: float | None) -> float:
    """At most ENOUGH_SECONDS; -1 for a track that cannot be decoded."""
    said, spoken = len(reader.warnings), 0.0
    chunks = reader.audio(CHUNK_SECONDS, start_seconds=start_seconds, duration_seconds=duration_seconds, track=track)
    try:
        for waveform in chunks:
            spoken += int(speech_mask(waveform.samples).sum()) * HOP / SAMPLE_RATE
            if spoken >= ENOUGH_SECONDS:
                break
    except LimitError:
        raise
    except MediaError:
        return -1.0
    finally:
        chunks.close()
        del reader.warnings[said:]  # of damage: said when the track is judged
    return min(spoken, ENOUGH_SECONDS)
