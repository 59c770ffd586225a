"""tools/insert.py: a fake stands where the manifest says, its control differs there only, and a seed repeats it."""

from __future__ import annotations

from pathlib import Path

import insert
import numpy as np
import pytest
from manifests import manifest_of
from media_factory import encode
from playback import luma, sound

from avdetect.datasets.manifest import read_manifest, write_manifest
from avdetect.media import probe
from avdetect.types import FPS, SAMPLE_RATE

FAKE_HZ, REAL_HZ = 2500, 500
FAKE_LUMA, REAL_LUMA = 200, 60
JOINT = 0.1  # seconds around a joint that the codec blurs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources a (3 genuine, 2 fakes, and one of each that is too short) and b (too few genuine ones). Fakes are bright
    and high, some files larger or louder than others."""
    folder = tmp_path_factory.mktemp("sources")
    lengths = {("a", 0): (3, 2.2, 5, 1), ("a", 1): (3, 2, 1), ("b", 1): (3,)}
    rows = [(dataset, fake, seconds) for (dataset, fake), each in lengths.items() for seconds in each]
    for i, (_, fake, seconds) in enumerate(rows):
        hertz, light = (FAKE_HZ, FAKE_LUMA) if fake else (REAL_HZ, REAL_LUMA)
        picture = f"color=0x{3 * f'{light:02x}'}:size={96 + 32 * (i % 2)}x96:rate=25:duration={seconds}"
        tone = f"aevalsrc={0.1 + 0.1 * i:.1f}*sin(2*PI*{hertz}*t):duration={seconds}"
        codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac".split()
        encode(folder / f"{i}.mp4", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, *codecs)
    datasets, fake, _ = zip(*rows, strict=True)
    paths = [folder / f"{i}.mp4" for i in range(len(rows))]
    labels = {"fake": fake, "video_fake": fake, "audio_fake": fake, "method": ["tone" * one for one in fake]}
    write_manifest(manifest_of(paths, **labels, split="dev", dataset=datasets), folder / "manifest.csv")
    return folder / "manifest.csv"


def is_fake(path: Path, part: str) -> np.ndarray:
    """Which video frames show the fake's light, or sound its tone."""
    info = probe(path)
    assert (info.video is None, info.audio is None) == (part == "voice", part == "face")
    if part == "face":
        assert luma(path).shape[1:] == (96, 96), "as small as the smallest"
        return luma(path)[:, 40:56, 40:56].mean(axis=(1, 2)) > (FAKE_LUMA + REAL_LUMA) / 2
    cells = sound(path)[: len(sound(path)) // 640 * 640].reshape(-1, 640)
    loudness = np.sqrt((cells[5:-5] ** 2).mean(1))
    assert loudness.max() < 1.5 * loudness.min(), "no piece is louder than another"
    power = np.abs(np.fft.rfft(cells * np.hanning(640))) ** 2
    return power[:, 1500 * 640 // SAMPLE_RATE :].sum(1) > power.sum(1) / 2


@pytest.mark.parametrize(("part", "count", "seed"), [("voice", 24, 0), ("face", 1, 1)])
def test_the_fake_stands_where_the_manifest_says_and_a_seed_repeats_it(
    manifest: Path, part: str, count: int, seed: int, tmp_path: Path, capsys
) -> None:
    words = [str(manifest), "--part", part, "--split", "dev", "--per-source"]
    assert insert.main([*words, str(count), "--out", str(tmp_path / "one")]) == 0
    table = read_manifest(tmp_path / "one" / "inserted.csv")
    assert table["fake"].tolist() == [1, 0] * min(count, 2), "fakes of source a, each with its control"
    assert set(table["dataset"]) == {"a"}
    assert count == 1 or "6.mp4" in capsys.readouterr().err, "what is too short is named"
    for row in table.itertuples():
        found = is_fake(Path(row.path), part)
        if not row.fake:
            assert not row.fake_segments
            assert not found.any()
            continue
        ((start, end),) = row.fake_segments
        expected = np.zeros(len(found), bool)
        expected[round(start * FPS) : round(end * FPS)] = True
        near = np.abs(np.arange(len(found))[:, None] / FPS - [start, end]).min(1) <= JOINT
        assert 1.6 <= end - start <= 4
        assert np.array_equal(found[~near], expected[~near])
    assert insert.main([*words, "1", "--out", str(tmp_path / "two"), "--seed", str(seed)]) == 0
    one, two = ({path.read_bytes() for path in (tmp_path / name).glob("*.m*")} for name in ("one", "two"))
    assert len(two) == 2
    assert (two <= one) == (seed == 0)


def test_what_cannot_be_made_is_said(manifest: Path, tmp_path: Path, capsys) -> None:
    assert insert.main([str(manifest), "--part", "face", "--split", "train", "--out", str(tmp_path / "none")]) == 1
    assert "no source of the manifest has a fake face and 3 genuine ones" in capsys.readouterr().err
    assert insert.main([str(manifest), "--part", "face", "--out", str(manifest.parent)]) == 1
    assert "is not empty" in capsys.readouterr().err
