"""Sync measured as sync, on clips whose mouth and voice state the same code: every shift is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from clips import ToneNetworks, codes_of, make_track, talking_clip, tones
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import manifest_of

from avdetect.config import ModelConfig
from avdetect.errors import MediaError
from avdetect.evaluation.metrics import TOO_FEW
from avdetect.evaluation.sources import Use
from avdetect.evaluation.sync import MAX_SHIFT, MISMATCH, cut_to_shorter, embed, measure_sync, partners, reading
from avdetect.scoring import StreamScorer
from avdetect.types import FPS, Clip, Waveform

CONFIG = ModelConfig()
Files = Sequence[Sequence[Clip] | None]  # None is a file that cannot be read


class Clips:
    def __init__(self, files: Files) -> None:
        self.files = files

    def feed(self, row: int, use: Use) -> dict[str, str]:
        clips = self.files[row]
        if clips is None:
            raise MediaError("damaged; copy it again")
        for clip in clips:
            use(clip)
        return {}


def measured(
    files: Files, fake: Sequence[int | None] | None = None, groups: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    paths = [f"/media/{i}.mp4" for i in range(len(files))]
    table = manifest_of(paths, fake=fake or 0, group=groups or paths, split="dev")
    shifts, summary = measure_sync(table, Clips(files), ToneNetworks(), CONFIG, rounds=50)
    return (shifts.set_index("shift_frames") if len(shifts) else shifts), summary


def two_clips(frames: int = 75) -> list[Clip]:
    """One file in two clips, the second with a second face that does not speak."""
    codes = codes_of(2 * frames, 0)
    sound, clips = tones(codes)[: 2 * frames * 640], []
    for i in range(2):
        part = slice(i * frames, (i + 1) * frames)
        tracks = [make_track(codes[part], i * frames)]
        tracks += [make_track(codes_of(frames, 99), i * frames, track_id=1)] * i
        wave = Waveform(sound[part.start * 640 : part.stop * 640], i * frames / FPS)
        clips.append(Clip(i * frames / FPS, frames / FPS, tuple(tracks), wave))
    return clips


def delayed(clip: Clip, shift: int) -> Clip:
    assert clip.waveform is not None
    wave = dataclasses.replace(clip.waveform, start_seconds=clip.waveform.start_seconds + shift / FPS)
    return dataclasses.replace(clip, waveform=wave)


@pytest.mark.parametrize("shift", [-15, -1, 15])
@pytest.mark.parametrize("clips", [two_clips(), [talking_clip(80, lag=2)]], ids=["two clips", "late voice"])
def test_shifted_indices_read_like_shifted_sound(clips: list[Clip], shift: int) -> None:
    """The reading of embeddings made once is the scorer's, of clips whose sound begins later."""
    networks = ToneNetworks()
    file = [found for clip in clips if (found := embed(clip, networks, CONFIG)) is not None]
    scorer = StreamScorer(networks, ModelConfig(streams=("sync",)))
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, delayed(clip, shift))
    expected = scorer.finish(outputs, {}).sync_reading()
    assert expected is not None
    assert reading(file, shift, CONFIG.sync.max_offset) == expected[1]


def test_every_shift_is_recovered_and_every_other_voice_told() -> None:
    files = [[talking_clip(90, seed=i)] for i in range(10)]
    shifts, summary = measured(files)
    assert shifts.index.tolist() == list(range(-MAX_SHIFT, MAX_SHIFT + 1))
    assert shifts[["n", "unread", "recovered", "mean_error_frames"]].eq([10, 0, 1, 0]).all(axis=None)
    first, *others = summary.to_dict("records")
    assert [first[name] for name in ("subset", "recovered", "recovered_low", "recovered_high")] == ["shifted", 1, 1, 1]
    assert [row["score"] for row in others] == list(MISMATCH)
    for row in others:
        assert (row["n"], row["fakes"], row["abstained"]) == (20, 10, 0)
        assert [row["auc"], row["auc_low"], row["auc_high"]] == pytest.approx([1, 1, 1])


def test_an_offset_of_its_own_counts_as_error() -> None:
    """Seven files in step, and one person whose three files lag by three frames."""
    files = [[talking_clip(90, seed=i, lag=3 if i > 6 else 0)] for i in range(10)]
    shifts, summary = measured(files, groups=[*"abcdefg", "late", "late", "late"])
    assert shifts.loc[0, ["recovered", "mean_error_frames"]].tolist() == pytest.approx([0.7, 0.9])
    first = summary.iloc[0]
    assert first["recovered"] == pytest.approx(0.7, abs=0.02)
    assert first["recovered_low"] < first["recovered"] < first["recovered_high"] <= 1


def test_only_real_files_with_enough_of_face_and_voice_are_measured() -> None:
    long = [talking_clip(75, seed=i) for i in range(2)]
    mute = dataclasses.replace(long[0], waveform=None)
    silent = dataclasses.replace(long[0], waveform=Waveform(np.zeros(75 * 640, np.float32)))
    files = [[long[0]], [long[1]], [talking_clip(62)], [mute], [silent], None, [], [long[0]], [long[0]]]
    assert measured(files, [0] * 7 + [1, None])[0]["n"].eq(2).all()
    assert all(table.empty for table in measured([[long[0]]], [1]))


def test_a_file_without_a_reading_counts_as_not_recovered() -> None:
    """Two thirds of a second of voice in a long clip: too little to read an offset from, no reason to leave it out."""
    quiet = talking_clip(90)
    assert quiet.waveform is not None
    quiet.waveform.samples[:-11000] = 0
    shifts, summary = measured([[talking_clip(90, seed=1)], [talking_clip(90, seed=2)], [quiet]])
    at_zero = shifts.loc[0]
    assert at_zero[["n", "unread", "recovered"]].tolist() == pytest.approx([3, 1, 2 / 3])
    assert at_zero["note"] == summary["note"].iloc[0] == TOO_FEW
    assert at_zero[["recovered_low", "mean_error_frames_high"]].isna().all()


def test_one_person_has_nobody_to_swap_with_and_all_is_the_same_again() -> None:
    files = [[talking_clip(75, seed=i)] for i in range(2)]
    one, other = (measured(files, groups=["a", "a"]) for _ in range(2))
    for table, again in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(table, again)
    swapped = one[1][one[1]["subset"] == "another voice"]
    assert swapped["n"].eq(0).all()
    assert swapped["abstained"].eq(4).all()


def test_both_voices_are_cut_to_the_shorter() -> None:
    """Else the length of what was searched would tell the two apart."""
    networks = ToneNetworks()
    long, short = ([embed(talking_clip(n, seed=n, start_frame=s), networks, CONFIG)] for n, s in ((120, 0), (70, 300)))
    mine, theirs = cut_to_shorter(long, short)
    assert len(mine[0].voice) == len(theirs[0].voice) == 70
    assert theirs[0].voice_frame == mine[0].voice_frame == 0, "the other's voice begins where the own one does"
    assert mine[0].mouths is theirs[0].mouths
    np.testing.assert_array_equal(mine[0].voice, long[0].voice[:70])
    np.testing.assert_array_equal(theirs[0].voice, short[0].voice)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_partners_are_of_another_group_each_once(groups: list[str]) -> None:
    names = np.array(groups, object)
    partner = partners(names)
    paired = partner >= 0
    assert (names[partner[paired]] != names[paired]).all()
    assert len(set(partner[paired])) == paired.sum()
    if 2 * max(groups.count(name) for name in groups) <= len(groups):
        assert paired.all()
