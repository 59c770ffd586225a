"""Miniatures of every dataset layout that the adapters read, each with the faults of the real ones.

`TREES[name](folder)` writes the tree and returns what to name as ROOT. Media files are a few dummy bytes: adapters
never open them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def put(folder: Path, *names: str) -> None:
    """Dummy media files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def put_text(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def dfdc(root: Path) -> Path:
    """Three folders: a whole one, one with an absent file, a bad label and an entry that is no object, a broken one."""
    for part in range(4):
        folder = root / f"dfdc_train_part_{part}"
        put(folder, "real.mp4", "fake.mp4")
        fake = {"label": "FAKE", "split": "train", "original": "real.mp4"}
        put_text(folder / "metadata.json", {"real.mp4": {"label": "REAL", "split": "train"}, "fake.mp4": fake})
    folder = root / "dfdc_train_part_1"
    content = json.loads((folder / "metadata.json").read_text())
    content |= {"gone.mp4": {"label": "REAL"}, "odd.mp4": {"label": "MAYBE"}, "no.mp4": "FAKE"}
    put_text(folder / "metadata.json", content)
    put(folder, "extra.mp4", "odd.mp4")
    put_text(root / "dfdc_train_part_9" / "metadata.json", '{"cut.mp4": {"label": ')
    put(root / "dfdc_train_part_9", "cut.mp4")
    return root


def dfdc_test(root: Path) -> Path:
    put(root, "test/a.mp4", "test/b.mp4", "test/c.mp4")
    augmented = {"is_fake": 1, "augmentations": {"augmenter": {"framerate_change": {"fps": 20}}}}
    put_text(
        root / "metadata.json",
        {"a.mp4": {"is_fake": 0, "augmentations": {}}, "b.mp4": augmented, "c.mp4": {}, "d.mp4": {"is_fake": 0}},
    )
    put_text(root / "labels.csv", "filename,label\na.mp4,0\n")
    return root


def dfdc_preview(root: Path) -> Path:
    entries: dict[str, object] = {}
    for person, split in (("101", "train"), ("102", "train"), ("103", "train"), ("104", "test")):
        entries[f"original_videos/{person}/{person}_A.mp4"] = {"label": "real", "set": split}
        entries[f"method_A/{person}/{person}_999/x.mp4"] = {"label": "fake", "set": split}
        entries[f"method_B/{person}/{person}_998/x.mp4"] = {"label": "fake", "set": split}
    put(root, *entries)
    entries["method_A/105/y.mp4"] = {"label": "fake", "set": "nowhere"}
    put_text(root / "dataset.json", entries)
    return root


FAKEAVCELEB_HEADER = "source,target1,target2,method,category,type,race,gender,path,"


def fakeavceleb(root: Path) -> Path:
    """The folder is written from above the dataset, and each line ends in an unnamed cell."""
    kinds = {
        "A": ("RealVideo-RealAudio", "real"),
        "B": ("RealVideo-FakeAudio", "rtvc"),
        "C": ("FakeVideo-RealAudio", "wav2lip"),
        "D": ("FakeVideo-FakeAudio", "faceswap-wav2lip"),
    }
    lines = [FAKEAVCELEB_HEADER]
    for person in ("id00076", "id00166", "id00173"):
        for category, (kind, method) in kinds.items():
            folder = f"{kind}/African/men/{person}"
            put(root, f"{folder}/00109.mp4")
            lines.append(f"{person},-,-,{method},{category},{kind},African,men,00109.mp4,FakeAVCeleb/{folder}")
    lines.append(lines[1])  # a duplicate row
    lines.append("id00076,-,-,fsgan,C,FakeVideo-RealAudio,African,men,gone.mp4,FakeAVCeleb/FakeVideo-RealAudio/x")
    lines.append("id00076,-,-,fsgan,E,FakeVideo-RealAudio,African,men,00109.mp4,FakeAVCeleb/FakeVideo-RealAudio/y")
    lines.append("id00076,-,-")
    put_text(root / "meta_data.csv", "\n".join(lines) + "\n")
    return root


def faceforensics(root: Path) -> Path:
    pairs = {
        "train": [["000", "003"], ["003", "000"], ["010", "011"]],
        "val": [["020", "021"]],
        "test": [["030", "031"]],
    }
    for split, these in pairs.items():
        put_text(root / f"{split}.json", these)
        for a, b in these:
            for compression in ("c23", "c40"):
                real = f"original_sequences/youtube/{compression}/videos"
                put(root, f"{real}/{a}.mp4", f"{real}/{b}.mp4")
                for method in ("Deepfakes", "NeuralTextures"):
                    fake = f"manipulated_sequences/{method}/{compression}/videos"
                    put(root, f"{fake}/{a}_{b}.mp4", f"{fake}/{b}_{a}.mp4")
    put_text(root / "train.json", [*pairs["train"], ["099"]])
    (root / "manipulated_sequences/Deepfakes/c40/videos/031_030.mp4").unlink()
    put(root, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4")
    put(root, "manipulated_sequences/Deepfakes/c23/videos/copy of 000_003.mp4")
    put(root, "original_sequences/actors/c23/videos/24__kitchen_still.mp4")
    put(root, "original_sequences/actors/c23/videos/07__hugging_happy.mp4")
    put(root, "manipulated_sequences/DeepFakeDetection/c23/videos/24_23__kitchen_still__9TDCEK1Q.mp4")
    put(root, "manipulated_sequences/DeepFakeDetection/c23/videos/23_25__kitchen_still__ABCDEF12.mp4")
    return root


def celebdf(root: Path, youtube: str = "YouTube-real") -> Path:
    """The folder of YouTube's reals has two spellings; the list has one that does not match."""
    put(root, "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0007.mp4", "Celeb-real/id2_0000.mp4")
    put(root, f"{youtube}/00001.mp4", f"{youtube}/00002.mp4")
    put(
        root, "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0007.mp4", "Celeb-synthesis/id2_id0_0000.mp4"
    )
    put(root, "Celeb-synthesis/unnamed.mp4")
    put_text(
        root / "List_of_testing_videos.txt",
        "1 YouTube-real/00001.mp4\n0 Celeb-synthesis/id1_id0_0007.mp4\n"
        "0 Celeb-real/id1_0007.mp4\n1 Celeb-real/none.mp4\n",
    )
    return root


def lavdf_entry(file: str, video: bool, audio: bool, **more: object) -> dict[str, object]:
    fake = video or audio
    return {
        "file": file,
        "n_fakes": int(fake),
        "fake_periods": [[0.5, 1.5]] if fake else [],
        "duration": 4.0,
        "original": None,
        "modify_video": video,
        "modify_audio": audio,
        "split": file.split("/")[0],
        "video_frames": 100,
        "audio_channels": 1,
        "audio_frames": 64000,
    } | more


def lavdf(root: Path) -> Path:
    entries: list[object] = []
    for split in ("train", "dev", "test"):
        real = f"{split}/000000.mp4"
        entries.append(lavdf_entry(real, False, False))
        for number, (video, audio) in enumerate([(True, False), (False, True), (True, True)], 1):
            entries.append(lavdf_entry(f"{split}/00000{number}.mp4", video, audio, original=real))
    put(root, *(str(e["file"]) for e in entries if isinstance(e, dict)))
    put(root, "train/000008.mp4", "train/000009.mp4", "train/000010.mp4")
    entries.append(lavdf_entry("train/000008.mp4", True, False, fake_periods=[[1.5, 0.5]]))
    entries.append(lavdf_entry("train/000009.mp4", False, False, n_fakes=2))
    entries.append(lavdf_entry("train/000010.mp4", True, True, split="nowhere"))
    entries.append(lavdf_entry("train/gone.mp4", True, True))
    entries.append({"duration": 4.0})
    put_text(root / "metadata.min.json", entries)
    return root


def av1m_entry(file: str, kind: str, split: str, **more: object) -> dict[str, object]:
    spans = {"fake_segments": [], "audio_fake_segments": [], "visual_fake_segments": []}
    name = kind.replace("-", "_")
    if name != "real":
        spans["fake_segments"] = [[0.2, 0.9]]
    if name in ("audio_modified", "both_modified"):
        spans["audio_fake_segments"] = [[0.2, 0.9]]
    if name in ("visual_modified", "both_modified"):
        spans["visual_fake_segments"] = [[0.25, 0.9]]
    original = None if name == "real" else str(Path(file).parent / "real.mp4")
    entry = {"file": file, "original": original, "split": split, "modify_type": kind, "audio_model": "vits"}
    return entry | {"video_frames": 60, "audio_frames": 40000} | spans | more


def avdeepfake1m(root: Path) -> Path:
    """Hyphens and underscores; val has the person of train; two test lists without labels."""
    kinds = ("real", "visual_modified", "audio-modified", "both-modified")
    for split, person in (("train", "id00012"), ("val", "id00012"), ("train", "id00013"), ("val", "id00017")):
        clip = f"{person}/{split}Talk/00001"
        entries = [av1m_entry(f"{clip}/{kind.replace('-', '_')}.mp4", kind, split) for kind in kinds]
        put(root / split, *(str(e["file"]) for e in entries))
        path = root / f"{split}_metadata.json"
        put_text(path, (json.loads(path.read_text()) if path.exists() else []) + entries)
    entries = json.loads((root / "train_metadata.json").read_text())
    put(root / "train", "id00013/x/1/odd.mp4", "id00013/x/1/spans.mp4", "id00013/x/1/bad.mp4")
    entries.append(av1m_entry("id00013/x/1/odd.mp4", "silenced", "train"))
    entries.append(av1m_entry("id00013/x/1/spans.mp4", "real", "train", fake_segments=[[0, 1]]))
    entries.append(av1m_entry("id00013/x/1/bad.mp4", "both_modified", "train", fake_segments="0-1"))
    entries += [av1m_entry("id00013/x/1/gone.mp4", "real", "train"), 7]
    put_text(root / "train_metadata.json", entries)
    put(root, "test/000001.mp4", "testA/a1.mp4")
    put_text(root / "test_files.txt", "000001.mp4\n000002.mp4\n")
    put_text(root / "testA_files.txt", "a1.mp4\n\n")
    return root


def avdeepfake1m_single(root: Path) -> Path:
    """The ++ release's other form: one JSON a video, one of them cut short."""
    for split in ("train", "val"):
        for number, kind in enumerate(("real", "visual-modified")):
            file = f"lrs3/{split}talk{number}/00001.mp4"
            put(root / split, file)
            entry = av1m_entry(file, kind, split, video_model="latentsync", original=None)
            put_text(root / f"{split}_metadata" / f"{file}.json", entry)
    put_text(root / "train_metadata" / "broken.json", "{")
    return root


def deepfaketimit(root: Path) -> Path:
    for quality in ("higher_quality", "lower_quality"):
        put(root, f"{quality}/fadg0/sa1-video-fram1.avi", f"{quality}/fadg0/sa1.wav")
        put(root, f"{quality}/fram1/sa2-video-fadg0.avi", f"{quality}/fram1/sa2-video-fadg0.wav")
        put(root, f"{quality}/mccs0/sa1-video-mabw0.avi", f"{quality}/mccs0/readme.avi")
    put(root, "vidtimit/fadg0/sa1.mp4", "vidtimit/mccs0/sa1.mp4")
    return root


def kodf(root: Path) -> Path:
    put(root, "real/101_001.mp4", "real/102_001.mp4", "real/103_001.mp4")
    put(root, *(f"fake/10{1 + code % 3}_104_{code}_0001.mp4" for code in range(1, 6)))
    put(root, "fake/101_104_6_0001.mp4", "fake/readme.mp4")
    return root


def avlips(root: Path) -> Path:
    for number in range(4):
        put(
            root, f"0_real/{number}.mp4", f"1_fake/{number}.mp4", f"wav/0_real/{number}.wav", f"wav/1_fake/{number}.wav"
        )
    put(root, "other/5.mp4")
    return root


def csv(root: Path) -> Path:
    put(root, *(f"data/{number}.mp4" for number in range(8)))
    lines = ["path,fake,note"] + [f"data/{number}.mp4,{number % 2},n{number}" for number in range(6)]
    lines += ["data/6.mp4,real,x", "./data/7.mp4,FAKE,x", "data/0.mp4,0,again", "data/1.mp4,0,against"]
    lines += ["gone.mp4,1,x", "data/2.mp4,perhaps,x"]
    put_text(root / "mine.csv", "\n".join(lines) + "\n")
    return root / "mine.csv"


def folder(root: Path) -> Path:
    put(root, "real/ann/1.mp4", "real/bob/1.mp4", "real/3.mp4", "fake/ann/1.mp4", "fake/4.mp4")
    put(root, "fake_audio/bob/2.mp4", "fake_video/cid/2.mp4", "fake_both/5.wav", "else/6.mp4", "real/ann/thumb.jpg")
    return root


def reals(root: Path) -> Path:
    """Nothing but real videos, directly in the folder."""
    put(root, *(f"holiday {number}.MP4" for number in range(12)), "notes.txt")
    return root


def corpus(root: Path) -> Path:
    clips = {
        "file": ["clips/r1.mp4", "clips/r2.mp4", "clips/f1.mp4", "clips/m.mp4", "clips/f2.mp4"],
        "fake": [0, 0, 1, 1, 1],
        "video_fake": [0, 0, 1, 0, 1],
        "audio_fake": ["0", "", "", "0", "1"],
        "kind": ["real", "real", "faceswap", "audio-swap", "mixed"],
        "generator": ["", "", "swapper", "", "both"],
        "identity": ["ann", "ann", "bob", "cid", "dora"],
        "source": ["s1", "s2", "s1", "s1", "s2"],
        "split": ["train", "dev", "train", "train", "train"],
    }
    speech = {
        "file": ["speech/r.opus", "speech/f.opus", "speech/g.opus", "speech/q.opus"],
        "fake": [0, 1, 1, 0],
        "system": ["human", "hifigan", "tts", "human"],
        "speaker": ["lj", "lj", "", "a man"],
        "pair": ["p1", "p1", "p2", "p1"],
        "source": ["page", "page", "page", "page"],
        "split": ["train"] * 4,
    }
    stills = {
        "file": ["stills/r.jpg", "stills/f.jpg"],
        "fake": [0, 1],
        "generator": ["", "stylegan2"],
        "source": ["faces", "faces"],
        "split": ["train", "dev"],
    }
    return _corpus_tables(root, clips, speech, stills)


def wide_corpus(root: Path) -> Path:
    """The same with rows that say more: what nobody calls genuine, whose voice it is, who stands in several sources."""
    corpus(root)
    tables = [pd.read_csv(root / f"{name}.csv", dtype=str) for name in ("clips", "speech", "stills")]
    clips = {
        "file": ["clips/w1.mp4", "clips/w2.mp4", "clips/w3.mp4", "clips/w4.mp4"],
        "fake": [0, 0, 0, 1],
        "video_fake": [0, 0, 0, 1],
        "audio_fake": [0, 0, "", ""],
        "kind": ["real", "real", "real", "full-video-generation"],
        "generator": ["", "", "", "goku"],
        "identity": ["a/b:1", "a/b:2", "person:eve", "person:eve"],
        "source": ["a/b", "a/b", "c/d", "e/f"],
        "split": ["train"] * 4,
        "own_voice": [1, 1, 0, 0],
        "certain": [0, 1, 1, 1],
    }
    speech = {
        "file": ["speech/w1.wav", "speech/w2.wav"],
        "fake": [0, 1],
        "system": ["human", "encodec"],
        "kind": ["speech-human", "speech-vocoded"],
        "speaker": ["", ""],
        "pair": ["c/d:1", "c/d:1"],
        "source": ["c/d", "c/d"],
        "split": ["train", "train"],
        "certain": [1, 1],
    }
    stills = {
        "file": ["stills/w1.jpg", "stills/w2.jpg"],
        "fake": [0, 1],
        "kind": ["still-real", "still-gan"],
        "generator": ["", "stylegan"],
        "source": ["c/d", "e/f"],
        "identity": ["c/d:eve", "c/d:eve"],
        "split": ["train", "train"],
        "certain": [1, 1],
    }
    more = [pd.DataFrame(rows).astype(str) for rows in (clips, speech, stills)]
    return _corpus_tables(root, *(pd.concat(both, ignore_index=True) for both in zip(tables, more, strict=True)))


def _corpus_tables(root: Path, clips: Any, speech: Any, stills: Any) -> Path:
    for name, columns in (("clips", clips), ("speech", speech), ("stills", stills)):
        put(root, *columns["file"])
        pd.DataFrame(columns).to_csv(root / f"{name}.csv", index=False)
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "dfdc": dfdc,
    "dfdc-test": dfdc_test,
    "dfdc-preview": dfdc_preview,
    "fakeavceleb": fakeavceleb,
    "faceforensics": faceforensics,
    "celebdf": celebdf,
    "lavdf": lavdf,
    "avdeepfake1m": avdeepfake1m,
    "deepfaketimit": deepfaketimit,
    "kodf": kodf,
    "avlips": avlips,
    "csv": csv,
    "folder": folder,
    "corpus": corpus,
}
