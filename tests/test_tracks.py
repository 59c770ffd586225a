"""Of several tracks the one with speech is judged, or the one that was asked for; which one is said."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from clips import speech, write_wav
from conftest import Here
from media_factory import encode

from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.detector import Detector
from avdetect.errors import ConfigError, MediaError
from avdetect.media import MediaReader
from avdetect.report.data import SCHEMA_FILE, to_json
from avdetect.report.text import render
from avdetect.report.words import causes
from avdetect.tracks import ENOUGH_SECONDS, spoken_track
from avdetect.types import SAMPLE_RATE

SECONDS = 4
TIME = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
SOUNDS = {
    "silence": lambda: np.zeros(SECONDS * SAMPLE_RATE, np.float32),
    "tone": lambda: (0.3 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32),
    "voice": lambda: speech(SECONDS),
    "other voice": lambda: speech(SECONDS, 1),
    "word": lambda: np.concatenate([np.zeros((SECONDS - 1) * SAMPLE_RATE, np.float32), speech(1.0, 3)]),  # at the end
    "late": lambda: np.concatenate([np.zeros(25 * SAMPLE_RATE, np.float32), speech(SECONDS)]),
}


def film(folder: Path, *sounds: str, default: int = 1) -> Path:
    """A gray picture with these sound tracks; `default` (from 1) is the one marked so."""
    inputs = ["-f", "lavfi", "-i", f"color=gray:size=64x64:rate=25:duration={SECONDS}"]
    maps, marks = ["-map", "0:v"], []
    for i, name in enumerate(sounds):
        inputs += ["-i", str(write_wav(folder / f"{i}.wav", SOUNDS[name]()))]
        maps += ["-map", f"{i + 1}:a"]
        marks += [f"-disposition:a:{i}", "default" if i + 1 == default else "0"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "pcm_s16le"]
    return encode(folder / "film.mkv", *inputs, *maps, *codecs, *marks)


@pytest.mark.parametrize(
    ("sounds", "default", "expected"),
    [
        (("voice",), 1, None),  # no choice: nothing is looked at
        (("tone", "voice"), 1, 2),
        (("voice", "other voice"), 2, 2),  # of equals the default one
        (("silence", "tone"), 2, 2),  # nobody speaks: as without a look
        (("silence", "word", "voice"), 1, 3),  # most speech
        (("word", "silence"), 2, 1),
        (("silence", "late"), 1, 2),  # a microphone that is silent for long
    ],
)
def test_the_track_with_speech_is_found(sounds, default, expected, tmp_path):
    with MediaReader(film(tmp_path, *sounds, default=default)) as reader:
        assert spoken_track(reader, 0.0, None) == expected
        assert reader.warnings == []


def test_the_look_ends_with_enough_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    audio = MediaReader.audio

    def noted(self: MediaReader, *args, **options):
        asked.append(options["track"])
        return audio(self, *args, **options)

    monkeypatch.setattr(MediaReader, "audio", noted)
    with MediaReader(film(tmp_path, "voice", "other voice", "tone")) as reader:
        spoken_track(reader, 0.0, None)
    assert asked == [1], f"{ENOUGH_SECONDS} s of speech in the first: no other can hold more that counts"
    with MediaReader(film(tmp_path, "word", "voice")) as reader:  # only the window counts
        assert spoken_track(reader, 0.0, 1.5) == 2
        assert spoken_track(reader, 3.0, None) == 1, "both have speech there: equals"


def test_the_voice_of_the_second_track_is_judged_and_said(detector: Detector, tmp_path: Path) -> None:
    found = detector.score(film(tmp_path, "silence", "voice"))
    assert (found.media.audio, found.media.audios, found.media.video, found.media.videos) == (2, 2, 1, 1)
    assert found.media.speech_seconds == pytest.approx(SECONDS, abs=0.3)
    one = detector.score(film(tmp_path, "voice"))
    assert found.audio_fake == pytest.approx(one.audio_fake, abs=1e-6)
    assert "audio track 2 of 2" in render(found).plain
    assert "track 1 of" not in render(one).plain
    assert "Audio track 2 of 2." in causes(found)[1].lines
    document = json.loads(to_json([found]))
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert document["results"][0]["media"]["audio"] == 2


def test_a_track_that_is_asked_for_is_judged(detector: Detector, tmp_path: Path, here: Here) -> None:
    path = film(tmp_path, "tone", "voice")
    found = detector.score(path, audio_track=1)
    assert (found.audio_fake, found.missing["audio"]) == (None, "no speech")
    assert "not judged: no speech (audio track 1 of 2)" in render(found).plain
    with pytest.raises(MediaError, match="no audio track 3: the file has 2 tracks"):
        detector.score(path, audio_track=3)
    with pytest.raises(ConfigError, match="from 1"):
        detector.score(path, video_track=0)
    told = here("score", path, "--json", "--audio-track", 1, "--video-track", 1, code=0).stdout
    media = json.loads(told)["results"][0]["media"]
    assert (media["audio"], media["speech_seconds"]) == (1, 0.0)


def test_the_track_belongs_to_what_a_journal_is_bound_to() -> None:
    plain, second = (ScoringOptions(limits=MediaLimits(), audio_track=track).identity() for track in (None, 2))
    assert {key for key in plain if plain[key] != second[key]} == {"audio track"}
