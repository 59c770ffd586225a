"""SCRFD through insightface: opt-in, because its pretrained weights are for non-commercial research only.

Guo, Deng, Lattas, Zafeiriou: "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022.
"""

import contextlib
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._onnx import check_graph, session_options
from avdetect._untrusted import read_regular
from avdetect.errors import ModelError, ToolError
from avdetect.extras import importing, require
from avdetect.faces.detector import CPU, Faces, fingerprint_of
from avdetect.types import Float, UInt8

SCRFD_TERMS = (
    "insightface's pretrained models, SCRFD among them, are available for non-commercial research purposes only "
    "(https://github.com/deepinsight/insightface#license). Commercial use needs a licence from insightface.ai. "
    "The default detector, MTCNN, has no such limit."
)
# Of its detector, det_500m.onnx, in insightface's release v0.7.
SHA256 = "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"
PACK = "buffalo_s"  # insightface's small pack; its detector is SCRFD-500MF with five landmarks
NMS = 0.4  # insightface's default
CANVAS = 640  # pixels; what SCRFD was trained on, and the usual fixed input
MAX_BYTES = 256 * 1024**2  # of the file
STRIDE = 32  # a graph without a fixed input size takes sides that are multiples of this


class SCRFD:
    """`path` is an ONNX file with five landmarks; None is what `avdetect models fetch` stored."""

    name = "scrfd"
    min_confidence = 0.5

    def __init__(self, path: Path | None = None, *, providers: tuple[str, ...] = CPU) -> None:
        require("scrfd", "the face detector scrfd")
        path = path or _stored(_default_root())
        if path is None or not path.is_file():
            raise ModelError(
                f"SCRFD's weights are missing{f': {path}' if path else ''}. Give the path of an SCRFD .onnx file, "
                f"or run `avdetect models fetch`. {SCRFD_TERMS}"
            )
        try:
            content = read_regular(path, MAX_BYTES)  # read once: what is checked is what is loaded
            check_graph(content, str(path))
            self._model = _load(content, providers)
        except ToolError:  # insightface does not import
            raise
        except Exception as error:  # onnxruntime's and protobuf's exceptions share no base class
            raise ModelError(f"{path} cannot be loaded as an SCRFD model: {error}") from error
        if getattr(self._model, "taskname", None) != "detection" or not getattr(self._model, "use_kps", False):
            raise ModelError(f"{path} is not an SCRFD detector with five landmarks (look for a file called det_*.onnx)")
        self.fingerprint = fingerprint_of(content)
        self._model.prepare(ctx_id=0, det_thresh=self.min_confidence * 0.75, nms_thresh=NMS)

    def detect(self, rgb: UInt8, *, min_face: float = 20.0) -> Faces:
        """All faces of `rgb` (H, W, 3) at least `min_face` pixels high."""
        # Padded: insightface would magnify a small picture to the graph's input, and SCRFD misses faces that fill it.
        height, width = (max(CANVAS, -(-side // STRIDE) * STRIDE) for side in rgb.shape[:2])
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: rgb.shape[0], : rgb.shape[1]] = rgb[:, :, ::-1]  # BGR
        found, points = self._model.detect(canvas, input_size=(width, height))  # a fixed graph ignores the size
        found = np.asarray(found, np.float32).reshape(-1, 5)
        landmarks = np.asarray(points, np.float32).reshape(-1, 5, 2)
        tall = (found[:, 2:4] - found[:, :2]).max(axis=1) >= min_face
        return Faces.sorted(found[tall, :4], found[tall, 4], landmarks[tall])

    def refine(self, rgb: UInt8, boxes: Float) -> None:
        """One pass over the whole picture is all that SCRFD does."""


def fetch_scrfd(root: Path | None = None) -> Path:
    """Download insightface's pack `buffalo_s` under `root` (~/.insightface) with insightface's own code.

    Returns the path of its SCRFD detector. Show SCRFD_TERMS first. Raises ModelError when the download fails or gives
    another file than was published, ToolError without insightface.
    """
    root = root or _default_root()
    if stored := _stored(root):
        return stored
    with importing("scrfd", "the download of SCRFD"):
        from insightface.utils.storage import download
    folder = root / "models" / PACK
    try:
        with contextlib.redirect_stdout(sys.stderr):  # insightface prints; stdout belongs to our output
            # force: an earlier download that broke off leaves a folder that looks complete
            download("models", PACK, force=True, root=str(root))
    except Exception as error:  # requests, zipfile, OSError, and RuntimeError for a bad status
        raise ModelError(
            f"insightface's {PACK} could not be downloaded ({type(error).__name__}: {error}). Check the network and "
            f"try again, or unpack {PACK}.zip by hand into {folder}. MTCNN works without it."
        ) from error
    stored = _stored(root)
    if stored is None:
        raise ModelError(f"{folder} holds no SCRFD detector (det_*.onnx); delete it and fetch again")
    if hashlib.sha256(read_regular(stored, MAX_BYTES)).hexdigest() != SHA256:
        stored.unlink()  # or the next fetch would take it for the one
        raise ModelError(
            f"what was downloaded as {stored} is not the detector that insightface published, and was deleted; fetch "
            "again over another network, or use MTCNN"
        )
    return stored


def _default_root() -> Path:
    return Path("~/.insightface").expanduser()  # where insightface itself looks


def _stored(root: Path) -> Path | None:
    """The detector of the downloaded pack, if it is there."""
    return next(iter(sorted((root / "models" / PACK).rglob("det_*.onnx"))), None)


def _load(content: bytes, providers: tuple[str, ...]) -> Any:
    with importing("scrfd", "the face detector scrfd"):  # lazily: a second, and only for those who chose it
        from insightface.model_zoo import get_model
    with tempfile.TemporaryDirectory(prefix="avdetect-") as folder:
        copy = Path(folder) / "det.onnx"  # insightface takes names only, and who can write to its file may swap it
        copy.write_bytes(content)
        # Fixed-shape copies of a free graph would make one more session for every picture size.
        options = {"sess_options": session_options(threads=1), "static_shape_sessions": False}
        return get_model(str(copy), providers=list(providers), **options)
