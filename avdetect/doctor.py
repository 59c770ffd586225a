"""What `avdetect doctor` checks: whether this installation gives the scores that the bundle was shipped with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avdetect._version import __version__
from avdetect.bundle import GOLDEN_TOLERANCE, Bundle, OnnxNetworks, execution_providers, replay_golden
from avdetect.errors import AVDetectError, ModelError, ToolError
from avdetect.faces import build_detector
from avdetect.media import ffmpeg_path


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


def run_checks(bundle: Path | None = None, device: str = "auto") -> list[Check]:
    """Every check, in order; one that fails does not keep the next from running."""
    return [
        _check("avdetect", lambda: f"{__version__} on Python {platform.python_version()}, {platform.system()}"),
        _check("ffmpeg", _ffmpeg),
        _check("onnxruntime", lambda: _onnxruntime(device)),
        _check("face detector", lambda: f"{build_detector('mtcnn').name} loads"),
        _check("bundle", lambda: _bundle(bundle)),
        _check("golden scores", lambda: _golden(bundle, device)),
    ]


def _check(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, True, action())
    except AVDetectError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a broken installation is what is looked for: it may fail in any way
        return Check(name, False, f"{type(error).__name__}: {error}")


def _ffmpeg() -> str:
    path = ffmpeg_path()
    try:
        output = subprocess.run(
            [path, "-hide_banner", "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(f"{path} does not run: {error}") from error
    return f"{output.stdout.splitlines()[0]} ({path})"


def _onnxruntime(device: str) -> str:
    """onnxruntime and onnxruntime-gpu own the same folder: beside each other, whichever came last won."""
    found = []
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        raise ModelError(
            f"{' and '.join(found)} are installed beside each other and have overwritten each other's files; keep one: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu"
        )
    return f"{', '.join(found)} with {', '.join(execution_providers(device))}"


def _bundle(folder: Path | None) -> str:
    info = Bundle.load(folder).info
    return f"{info.name}, format {'.'.join(map(str, info.format))}, hashes match, licence: {info.licence}"


def _golden(folder: Path | None, device: str) -> str:
    bundle = Bundle.load(folder)
    differences = replay_golden(bundle, OnnxNetworks(bundle, device))
    worst = max(differences, key=lambda graph: differences[graph])
    if not differences[worst] <= GOLDEN_TOLERANCE:
        raise ModelError(
            f"{worst} differs by {differences[worst]:.2g} from its stored score (allowed {GOLDEN_TOLERANCE:g}): this "
            "ONNX Runtime computes something else; try another version or --device cpu"
        )
    return f"replayed, largest difference {differences[worst]:.1g} ({worst})"
