"""The out-of-fold table of a bundle: it may be absent; where it is listed, it is verified like every other file."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from clips import talking_clip
from test_bundle import CALIBRATION, build_model, edit

from avdetect.bundle import OUT_OF_FOLD, Bundle, OnnxNetworks, replay_golden
from avdetect.config import PreprocessConfig
from avdetect.errors import ModelError
from avdetect.export import PARITY_TOLERANCE, export_bundle

torch.set_num_threads(1)  # networks this small only wait for a second thread
TABLE = gzip.compress(b"path,fake,p_fake,fold\na.mp4,1,0.93,0\nb.mp4,0,0.08,1\n", mtime=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(
        build_model(),
        tmp_path_factory.mktemp("bundle") / "tiny",
        name="tiny",
        licence="MIT",
        preprocess=PreprocessConfig(),
        calibration=CALIBRATION,
        training={},
        sample=[talking_clip(80, mouth=PreprocessConfig().faces.mouth_size)],
        out_of_fold=TABLE,
    )


@pytest.fixture
def copy(exported: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(exported.folder, tmp_path / "copy")


def test_the_table_travels_with_the_bundle(exported: Bundle) -> None:
    assert exported.files[OUT_OF_FOLD] == TABLE
    assert (exported.folder / OUT_OF_FOLD).read_bytes() == TABLE
    again = Bundle.load(exported.folder)
    assert again.files == exported.files
    assert max(replay_golden(again, OnnxNetworks(again, "cpu", threads=1)).values()) <= PARITY_TOLERANCE


@pytest.mark.parametrize("content", [None, b"", TABLE[:-5], bytes([TABLE[0] ^ 1]) + TABLE[1:]])
def test_a_table_that_is_gone_or_altered_is_noticed(copy: Path, content: bytes | None) -> None:
    (copy / OUT_OF_FOLD).unlink()
    if content is not None:
        (copy / OUT_OF_FOLD).write_bytes(content)
    with pytest.raises(ModelError, match=f"lacks {OUT_OF_FOLD}|{OUT_OF_FOLD} differs from its hash"):
        Bundle.load(copy)


@pytest.mark.parametrize("left", [False, True])
def test_a_bundle_without_it_loads(copy: Path, left: bool) -> None:
    """A table that lies in the folder unlisted is not verified, so it is not read either."""
    edit(copy, lambda values: values["files"].pop(OUT_OF_FOLD))
    if not left:
        (copy / OUT_OF_FOLD).unlink()
    assert OUT_OF_FOLD not in Bundle.load(copy).files


@pytest.mark.parametrize("name", ["OUT_OF_FOLD.CSV.GZ", f"../{OUT_OF_FOLD}", "sixth.onnx", "bundle.json", ""])
@pytest.mark.parametrize("beside", [True, False])
def test_any_other_file_is_refused(copy: Path, name: str, beside: bool) -> None:
    def add(values: dict) -> None:
        digest = values["files"].pop(OUT_OF_FOLD)
        values["files"] |= {name: digest} | ({OUT_OF_FOLD: digest} if beside else {})

    edit(copy, add)
    with pytest.raises(ModelError, match="lists the files"):
        Bundle.load(copy)
