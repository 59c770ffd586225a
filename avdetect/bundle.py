"""What is shipped: ONNX graphs, config, calibration, provenance and golden scores, in one folder.

    bundle.json    format version, configs, calibration, provenance, and the SHA-256 of every other file
    visual.onnx    crops (N, S, S, 3) uint8 -> logits (N,)
    speech.onnx    mels (N, T, 80) -> frames (N, T', L, C): L levels of the encoder, T' = T / 2, or the mels
    audio.onnx     frames -> logits (N,)
    mouth.onnx     mouths (N, T, M, M) uint8 -> (N, T - R + 1, E), R = `sync.mouth_frames`; the first is frame R // 2's
    voice.onnx     frames -> (N, T / 4, E), one a video frame
    fusion.onnx    features (N, len(pooling.FEATURES)) -> logits (N, 4): fake, video_fake, audio_fake,
                   mismatch
    golden.npz     an input and the expected output of each graph
    out_of_fold.csv.gz  (may be absent) what streams and fusions that never saw a training file's fold say of it

A bundle may come from anybody. Nothing is unpickled: graphs are ONNX, arrays are read with allow_pickle=False, the rest
is JSON. Only regular files of bounded size are read, and graphs that name another file, bring operators of their own or
state tensors that are not there are refused before ONNX Runtime sees them (avdetect._onnx). The hashes tell damage, not
who made it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._onnx import FLOAT, UINT8, Port, check_graph, session_options
from avdetect._untrusted import read_arrays, read_regular
from avdetect.audio import N_MELS
from avdetect.config import ModelConfig, PreprocessConfig, from_dict, to_dict
from avdetect.errors import AVDetectError, ConfigError, ModelError
from avdetect.extras import how_to_install
from avdetect.files import write_whole
from avdetect.pooling import FEATURES
from avdetect.types import Float, Rate, UInt8

# 3.0: two thresholds, and measured rates. Another major version is refused.
FORMAT = (3, 0)
OUT_OF_FOLD = "out_of_fold.csv.gz"
GRAPHS = ("visual", "speech", "audio", "mouth", "voice", "fusion")
DEFAULT_BUNDLE = Path(__file__).parent / "weights" / "default"
GOLDEN_TOLERANCE = 1e-3  # of a logit; ONNX Runtime's kernels differ between CPUs by less
_MAX_INFO_BYTES = 4 * 1024**2
_MAX_FILE_BYTES = 512 * 1024**2
# Of a graph whose work is worth sharing: ten million weights in half precision. One of three million took a tenth more
# CPU seconds with two threads, and the same wall seconds.
_LARGE_BYTES = 20 * 1024**2
# Given to a graph at once. On a CPU few stay in the cache, and more need more memory; of pictures only one does.
_CPU_ROWS, _CUDA_ROWS = dict.fromkeys(GRAPHS, 4) | {"visual": 1}, dict.fromkeys(GRAPHS, 64)
_MOUTH_STEPS = 100  # mouth vectors that are made at once: each needs `mouth_frames` pictures
_FRAMES = Port(FLOAT, (None, None, None, None))
_PORTS = {  # input and output of each graph, as above
    "visual": (Port(UINT8, (None, None, None, 3)), Port(FLOAT, (None,))),
    "speech": (Port(FLOAT, (None, None, N_MELS)), _FRAMES),
    "audio": (_FRAMES, Port(FLOAT, (None,))),
    "mouth": (Port(UINT8, (None, None, None, None)), Port(FLOAT, (None, None, None))),
    "voice": (_FRAMES, Port(FLOAT, (None, None, None))),
    "fusion": (Port(FLOAT, (None, len(FEATURES))), Port(FLOAT, (None, 4))),
}


@dataclass(frozen=True)
class Calibration:
    """Platt scaling of each output, the clip of the probabilities, and what a verdict rests on."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]
    clip: float  # probabilities stay within [clip, 1 - clip]: log loss punishes certainty that the data cannot back
    fake_threshold: float  # from this P(fake) on a file is called fake
    undecided_threshold: float  # from this one on, and below the other, it is undecided; never above the other
    # Output -> what was measured of it on sources left out, from the most real files that reach a probability to the
    # fewest. Without an output of which nothing could be measured.
    rates: dict[str, tuple[Rate, ...]] = field(default_factory=dict)

    def probabilities(self, logits: Float) -> Float:
        """(…, 4) logits -> probabilities of fake, video_fake, audio_fake, mismatch under equal priors."""
        z = np.asarray(logits, np.float64) * self.scale + self.bias
        return np.clip(1 / (1 + np.exp(-z.clip(-500, 500))), self.clip, 1 - self.clip).astype(np.float32)

    def rate(self, output: str, probability: float) -> Rate | None:
        """The rarest of the measured rates that `probability` reaches; where it reaches none, that of all files. None
        where nothing was measured."""
        measured = self.rates.get(output)
        reached = [rate for rate in measured or () if probability >= rate.probability]
        return (reached[-1] if reached else Rate(0.0, 1.0, 1.0)) if measured else None


@dataclass(frozen=True)
class BundleInfo:
    """bundle.json."""

    format: tuple[int, ...]
    name: str
    avdetect_version: str
    licence: str
    preprocess: PreprocessConfig
    preprocess_digest: str
    model: ModelConfig
    calibration: Calibration
    training: dict[str, Any]  # manifest digest, rows, seed, dev metrics
    versions: dict[str, str]  # of the packages that trained and exported it
    files: dict[str, str]  # name -> SHA-256
    limits: tuple[str, ...] = ()  # what a reader of a report must know of the model, a sentence each; () unknown


def write_bundle(folder: Path, info: BundleInfo, files: dict[str, bytes]) -> None:
    """Write `files` and bundle.json (with their hashes) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    values = to_dict(info) | {"files": {name: hashlib.sha256(c).hexdigest() for name, c in files.items()}}
    write_whole(folder / "bundle.json", f"{json.dumps(values, indent=1)}\n".encode())


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been read and verified."""

    folder: Path
    info: BundleInfo
    files: dict[str, bytes]  # of a Detector's bundle none: its networks hold them
    digest: str  # 16 hex digits of bundle.json's SHA-256; it names every other file's hash, so it names the bundle

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Bundle:
        """Read `folder` (default: the bundle in the package) and check version and hashes. Raises ModelError."""
        folder = Path(folder) if folder is not None else DEFAULT_BUNDLE
        info, digest = _read_info(folder / "bundle.json")
        names = {f"{graph}.onnx" for graph in GRAPHS} | {"golden.npz"}
        if set(info.files) - {OUT_OF_FOLD} != names:
            raise ModelError(f"{folder} lists the files {sorted(info.files)}; a bundle has {sorted(names)}")
        files = {name: _read_verified(folder / name, expected) for name, expected in info.files.items()}
        for graph, ports in _PORTS.items():
            check_graph(files[f"{graph}.onnx"], str(folder / f"{graph}.onnx"), ports)
        if info.preprocess.digest() != info.preprocess_digest:
            raise ModelError(
                f"{folder} was trained on preprocessing {info.preprocess_digest}, but its configuration now reads as "
                f"{info.preprocess.digest()}: this avdetect prepares video differently. Install avdetect "
                f"{info.avdetect_version} or retrain the bundle."
            )
        return cls(folder, info, files, digest)

    def golden(self) -> dict[str, np.ndarray]:
        """`<graph>.input` and `<graph>.output` of each graph. Raises ModelError when they are not plain arrays."""
        try:
            return read_arrays(self.files["golden.npz"])
        except Exception as error:  # NumPy and zipfile raise many kinds
            raise ModelError(f"golden.npz of {self.folder} cannot be read without unpickling: {error}") from error


def _read_info(path: Path) -> tuple[BundleInfo, str]:
    """bundle.json and its digest."""
    try:
        content = read_regular(path, _MAX_INFO_BYTES)
        values = json.loads(content)
    except OSError as error:
        raise ModelError(f"cannot read {path} ({error.strerror}): pass the folder that holds bundle.json") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, list) or not version or not all(isinstance(v, int) for v in version):
        raise ModelError(f"{path} states no format version: it is not an avdetect bundle")
    if version[0] != FORMAT[0]:
        raise ModelError(
            f"{path.parent} is a bundle of format {version[0]}, this avdetect reads format {FORMAT[0]}: "
            f"install avdetect {values.get('avdetect_version', 'of that time')} or export the bundle again"
        )
    try:
        info = from_dict(BundleInfo, values, "bundle.json", stored=True)
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{path} is damaged or was made by another version: {error}") from error
    _check_calibration(path, info.calibration)
    return info, hashlib.sha256(content).hexdigest()[:16]


def _check_calibration(path: Path, calibration: Calibration) -> None:
    if len(calibration.scale) != 4 or len(calibration.bias) != 4:
        raise ModelError(f"{path}: the calibration must have four scales and four biases")
    lower, upper = calibration.undecided_threshold, calibration.fake_threshold
    numbers = (*calibration.scale, *calibration.bias, calibration.clip, lower, upper)
    if not np.isfinite(numbers).all() or not 0 <= calibration.clip < 0.5:
        raise ModelError(f"{path}: the calibration {calibration} would give no probabilities")
    if lower > upper:
        raise ModelError(f"{path}: the calibration's undecided_threshold {lower} is above its fake_threshold {upper}")
    for output, rates in calibration.rates.items():
        table = np.array([(r.probability, -r.reals, r.fakes) for r in rates]).reshape(-1, 3)
        if not (np.abs(table) <= 1).all() or (np.diff(table[:, :2], axis=0) < 0).any():  # NaN fails the first
            raise ModelError(f"{path}: the rates of {output!r} are no shares in order")


def _read_verified(path: Path, digest: str) -> bytes:
    try:
        content = read_regular(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise ModelError(f"the bundle lacks {path.name} ({error.strerror}): copy the whole folder again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(f"{path} differs from its hash in bundle.json: it is damaged or was altered; copy it again")
    return content


def execution_providers(device: str) -> list[str]:
    """ONNX Runtime providers for `device` in auto, cpu, cuda. Raises ConfigError; ModelError without a CUDA build."""
    import onnxruntime

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {device!r}")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ModelError(
            f"this onnxruntime has no CUDA provider: use --device cpu, or exchange it; {how_to_install('gpu')}"
        )
    return [*(["CUDAExecutionProvider"] if has_cuda and device != "cpu" else []), "CPUExecutionProvider"]


class OnnxNetworks:
    """The bundle's graphs on ONNX Runtime, behind `scoring.Networks`."""

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        import onnxruntime

        # A small network loses more by sharing its work among threads than it gains, beside a decoder that is busy.
        large = len(bundle.files["visual.onnx"]) > _LARGE_BYTES
        options = session_options((threads or min(4, len(os.sched_getaffinity(0)))) if large else 1)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn CPU
        providers = execution_providers(device)
        self._folder, self._sync = bundle.folder, bundle.info.model.sync
        try:
            self._sessions = {
                graph: onnxruntime.InferenceSession(bundle.files[f"{graph}.onnx"], options, providers=providers)
                for graph in GRAPHS
            }
        except Exception as error:  # onnxruntime raises its own untyped family
            raise ModelError(f"ONNX Runtime cannot load the graphs of {bundle.folder}: {error}") from error
        for session in self._sessions.values():
            session.disable_fallback()  # a provider that fails is an error, not another provider …
            session._model_bytes = None  # … and the file, kept for that, is let go
        self.providers = self._sessions["visual"].get_providers()
        self.fell_back = providers[0] != self.providers[0]  # from CUDA to the CPU
        if device == "cuda" and self.fell_back:
            raise ModelError(
                "CUDA was asked for but could not be started (driver or CUDA libraries missing); use --device cpu"
            )
        self._rows = _CUDA_ROWS if self.providers[0] == "CUDAExecutionProvider" else _CPU_ROWS

    def run(self, graph: str, array: np.ndarray) -> Float:
        """Run one graph, some rows at a time."""
        session, rows = self._sessions[graph], self._rows[graph]
        name = session.get_inputs()[0].name
        try:
            parts = [session.run(None, {name: array[i : i + rows]})[0] for i in range(0, len(array), rows)]
            found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        except Exception as error:  # onnxruntime raises its own untyped family
            raise ModelError(f"{graph}.onnx of {self._folder} cannot be run: {error}") from error
        if len(found) != len(array) or not np.isfinite(found).all():
            raise ModelError(f"{graph}.onnx of {self._folder} gives no number for each input: use another bundle")
        return found

    def visual(self, crops: UInt8) -> Float:
        return self.run("visual", crops)

    def speech(self, mels: Float) -> Float:
        return self.run("speech", mels)

    def audio(self, frames: Float) -> Float:
        return self.run("audio", frames)

    def mouth(self, mouths: UInt8) -> Float:
        reach = self._sync.mouth_frames - 1
        starts = range(0, max(mouths.shape[1] - reach, 1), _MOUTH_STEPS)
        found = np.concatenate(
            [self._vectors("mouth", mouths[:, start : start + _MOUTH_STEPS + reach]) for start in starts], axis=1
        )
        if found.shape[1] != mouths.shape[1] - self._sync.mouth_frames + 1:
            raise ModelError(f"mouth.onnx of {self._folder} gives no vector for each frame: use another bundle")
        return found

    def voice(self, frames: Float) -> Float:
        return self._vectors("voice", frames)

    def fusion(self, features: Float) -> Float:
        """(N, len(FEATURES)) -> (N, 4) logits."""
        return self.run("fusion", features)

    def _vectors(self, graph: str, array: np.ndarray) -> Float:
        found = self.run(graph, array)
        if found.shape[2] != self._sync.embedding:
            raise ModelError(f"{graph}.onnx of {self._folder} gives vectors of another length: use another bundle")
        return found


def replay_golden(bundle: Bundle, networks: OnnxNetworks) -> dict[str, float]:
    """Largest difference of each graph from its stored output; infinite where either is not a number or of its shape.
    Above GOLDEN_TOLERANCE the scores are not the trained ones."""
    golden, differences = bundle.golden(), {}
    try:
        for graph in GRAPHS:
            found, expected = networks.run(graph, golden[f"{graph}.input"]), golden[f"{graph}.output"]
            same = found.shape == expected.shape and np.isfinite(expected).all()
            differences[graph] = float(np.abs(found - expected).max(initial=0.0)) if same else float("inf")
    except AVDetectError:
        raise
    except Exception as error:  # a missing array or a shape that the graph refuses
        raise ModelError(f"the golden scores of {bundle.folder} cannot be replayed: {error}") from error
    return differences
