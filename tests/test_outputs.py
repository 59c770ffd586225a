"""What the fusion is fitted on: a part's files, and the real ones with the voice of another person."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from archive_factory import make_archive
from clips import ToneNetworks, talking_clip
from manifests import manifest_of

from avdetect.config import FaceConfig, FusionFitConfig, ModelConfig, PreprocessConfig, TrainConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import mismatch
from avdetect.pooling import FEATURES
from avdetect.scoring import StreamScorer
from avdetect.training import outputs
from avdetect.training.outputs import Voices, mismatched, read_outputs, score_subset
from avdetect.training.sampling import Subset
from avdetect.training.streams import score_clips
from avdetect.types import Clip

PREPROCESS = PreprocessConfig(faces=FaceConfig(crop_size=32))
FABRIC = SimpleNamespace(global_rank=0, world_size=1, is_global_zero=True, device="cpu")
NAMES = ["a", "b", "c", "dubbed", "fake", "also-anna"]
STATED = {
    "fake": [0, 0, 0, 0, 1, 0],
    "own_voice": ["", "", "", 0, "", 1],
    "group": ["anna", "bert", "carl", "dora", "emil", "anna"],
    "dataset": ["one", "one", "two", "one", "one", "two"],
}


def clip(seed: int, start: int = 0) -> Clip:
    return talking_clip(110, seed=seed, size=32, start_frame=start)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    part = ["", "", "", "", 1, ""]
    table = manifest_of(NAMES, **STATED, video_fake=part, audio_fake=part)
    clips = [[clip(i), clip(10 + i, start=110)] if i < 2 else [clip(i)] for i in range(len(table))]
    return make_archive(tmp_path_factory.mktemp("archive"), table, clips, PREPROCESS)


@pytest.fixture
def part(archive: ClipArchive) -> Subset:
    return Subset(archive, np.arange(len(archive.files)))


def scored(part: Subset, folder: Path, monkeypatch: pytest.MonkeyPatch, **fit) -> tuple[pd.DataFrame, np.ndarray]:
    monkeypatch.setattr(outputs, "TorchNetworks", lambda model, device: ToneNetworks())
    config = TrainConfig(preprocess=PREPROCESS, fusion=FusionFitConfig(**fit))
    score_subset(config, SimpleNamespace(config=ModelConfig(), cpu=lambda: None), part, folder, FABRIC)
    found = read_outputs([part], [folder])
    np.testing.assert_array_equal(found.is_file, np.arange(len(found.table)) < len(part.rows))
    return found.table, found.features


def test_a_voice_comes_from_another_person_of_the_same_source(part: Subset) -> None:
    voices = Voices(part)
    names = part.archive.files["path"].str.rsplit("/").str[-1]
    given = {
        names[row]: {len(voices.of_another(row, np.random.default_rng(i))) for i in range(6)}
        for row in voices.rows.tolist()
    }
    # a (2 clips) and b (2) are the only ones of their source; c gets also-anna's (1) and the other way round.
    assert given == {"a": {2}, "b": {2}, "c": {1}, "also-anna": {1}}
    alone = np.flatnonzero(part.archive.files["group"] == "anna")
    assert Voices(Subset(part.archive, alone)).of_another(int(alone[0]), np.random.default_rng(0)) == []


def test_another_voice_does_not_match_and_the_picture_is_not_looked_at_again() -> None:
    networks = ToneNetworks()
    scorer = StreamScorer(networks, ModelConfig())
    clips = [clip(0), clip(1, start=110)]
    seen = score_clips(scorer, clips)
    crops = networks.calls["visual"]
    found = mismatched(scorer, seen, clips, [clip(5)], np.random.default_rng(0), FaceConfig())
    assert networks.calls["visual"] == crops
    own, other = (dict(zip(FEATURES, one.features().tolist(), strict=True)) for one in (seen, found))
    assert own["sync_match"] > 0.8
    assert abs(other["sync_match"]) < 0.3
    assert other["visual_logit"] == own["visual_logit"]
    assert other["has_sync"] == other["has_audio"] == 1
    assert found.speech_seconds > 6, "both clips got the voice of the one"
    silent = mismatched(scorer, seen, clips, [], np.random.default_rng(0), FaceConfig())
    assert set(silent.missing) == {"audio", "sync"}


def test_real_files_are_scored_with_another_voice_too(
    part: Subset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, features = scored(part, tmp_path, monkeypatch, forged=0, mismatched=2)
    extra = table.iloc[len(NAMES) :]
    names = [path.rsplit("/")[-1].split("#")[0] for path in extra["path"]]
    assert names == ["a", "a", "b", "b", "c", "c", "also-anna", "also-anna"]
    assert (extra["method"] == "other_voice").all()
    assert extra["path"].is_unique
    assert (extra[["fake", "video_fake", "audio_fake"]] == [1, 0, 0]).all(axis=None), "though no part is labelled"
    assert mismatch(table).fillna(-1).tolist() == [0, 0, 0, -1, -1, 0, *[1] * 8]
    match = features[:, FEATURES.index("sync_match")]
    assert match[: len(NAMES)].min() > match[len(NAMES) :].max() + 0.3


def test_a_face_that_does_not_speak_gets_no_other_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its voice comes from somebody who is not in the picture anyway."""
    still = [clip(i) for i in range(2)]
    for one in still:
        one.tracks[0].mouth_crops[:] = 30
    table = manifest_of(NAMES[:2])
    archive = make_archive(tmp_path / "archive", table, [[one] for one in still], PREPROCESS)
    table, features = scored(Subset(archive, np.arange(2)), tmp_path / "scores", monkeypatch, forged=0)
    assert len(table) == 2
    assert (features[:, FEATURES.index("has_sync")] == 0).all()
