"""What `avdetect doctor` checks: whether this installation gives the scores that the bundle was shipped with.

Each check imports what it looks at, for that may be what is broken.
"""

import importlib
import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from avdetect._version import __version__
from avdetect.errors import AVDetectError, ModelError, ToolError
from avdetect.extras import LIBRARIES, ONE_ONNXRUNTIME, ONE_OPENCV, how_to_install, installed_version

_IMPORT_SECONDS = 120  # torch from a cold disk takes half a minute
_IMPORT = "import sys\nfor name in sys.argv[1:]:\n    print(name, flush=True)\n    __import__(name)"


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


def run_checks(bundle: Path | None = None, device: str = "auto") -> list[Check]:
    """Every check, in order; one that fails does not keep the next from running."""
    checks: dict[str, Callable[[], str]] = {
        "avdetect": lambda: f"{__version__} on Python {platform.python_version()}, {platform.system()}",
        "ffmpeg": _ffmpeg,
        "PyAV": _pyav,
        "sandbox": _sandbox,
        "onnxruntime": lambda: _onnxruntime(device),
        "opencv": _opencv,
        "face detector": _faces,
        "bundle": lambda: _bundle(bundle),
        "parts": lambda: _parts(bundle),
        "golden scores": lambda: _golden(bundle, device),
    }
    installed = [extra for extra, modules in LIBRARIES.items() if all(map(find_spec, modules))]
    checks |= {f"extra {extra}": partial(_extra, extra) for extra in installed}
    return [_check(name, action) for name, action in checks.items()]


def _check(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, True, action())
    except AVDetectError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a broken installation is what is looked for: it may fail in any way
        return Check(name, False, f"{type(error).__name__}: {error}")


def _ffmpeg() -> str:
    from avdetect.media import check_ffmpeg, ffmpeg_path

    return f"{check_ffmpeg()} ({ffmpeg_path()})"


def _pyav() -> str:
    try:
        return f"{importlib.import_module('av').__version__} imports"
    except ImportError as error:
        raise ToolError(f"{error}; run `pip install --force-reinstall av`") from error


def _sandbox() -> str:
    from avdetect.media import sandbox

    found = sandbox()
    return (
        f"{found} confines what reads a file" if found else "none: no Landlock in this kernel; nothing confines ffmpeg"
    )


def _onnxruntime(device: str) -> str:
    from avdetect.bundle import execution_providers

    found = _one_of(("onnxruntime", "onnxruntime-gpu"), ONE_ONNXRUNTIME)
    return f"{found} with {', '.join(execution_providers(device))}"


def _opencv() -> str:
    names = [f"opencv{contrib}-python{headless}" for headless in ("-headless", "") for contrib in ("", "-contrib")]
    found = _one_of(names, ONE_OPENCV)
    _import_all(("cv2",), f"from the checkout: {ONE_OPENCV}")
    return found


def _one_of(packages: Sequence[str], remedy: str) -> str:
    """Name and version of the one that is installed; they own the same folder. Raises ToolError for two."""
    versions = {package: version for package in packages if (version := installed_version(package))}
    found = [f"{package} {version}" for package, version in versions.items()]
    if len(found) > 1:
        raise ToolError(
            f"{' and '.join(found)} are installed beside each other and have overwritten each other's files; keep one, "
            f"from the checkout: {remedy}"
        )
    return found[0] if found else f"{packages[0]}, not installed by pip"


def _extra(name: str) -> str:
    """Of an extra that is installed: what must go together does, and all of it imports. Raises ToolError."""
    exact = re.compile(rf"""([\w.-]+)==([\w.]+)\s*;\s*extra == ["']{name}["']""")
    found = map(exact.fullmatch, importlib.metadata.requires("avdetect") or ())
    pins = {match[1]: match[2] for match in found if match}
    have = {package: importlib.metadata.version(package) for package in pins}
    wrong = [f"{package} is {have[package]}" for package in pins if have[package].partition("+")[0] != pins[package]]
    together = ", ".join(f"{package} {version}" for package, version in pins.items())
    if wrong:
        raise ToolError(f"{' and '.join(wrong)}, but what goes together is {together}; {how_to_install(name)}")
    _import_all(LIBRARIES[name], how_to_install(name))
    return "imports" + (f", with {together}" if together else "")


def _import_all(modules: Sequence[str], remedy: str) -> None:
    """In a process of its own: they take seconds and memory, and a broken one may crash. Raises ToolError."""
    command = [sys.executable, "-c", _IMPORT, *modules]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_IMPORT_SECONDS)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        name = (done.stdout.split() or modules)[-1]
        raise ToolError(f"{name} is installed, but cannot be imported ({last}); {remedy}")


def _faces() -> str:
    from avdetect.faces import build_detector

    return f"{build_detector('mtcnn').name} loads"


def _bundle(folder: Path | None) -> str:
    from avdetect.bundle import Bundle

    info = Bundle.load(folder).info
    return f"{info.name}, format {'.'.join(map(str, info.format))}, hashes match, licence: {info.licence}"


def _parts(folder: Path | None) -> str:
    from avdetect.bundle import Bundle
    from avdetect.pooling import PART_OF

    model = Bundle.load(folder).info.model
    judged = [part for stream, part in PART_OF.items() if stream in model.streams and stream not in model.fusion.silent]
    silent = [f"the {s} stream carries no information about {PART_OF[s]}: it abstains" for s in model.fusion.silent]
    return "; ".join([f"judges {', '.join(judged) or 'nothing'}", *silent])


def _golden(folder: Path | None, device: str) -> str:
    from avdetect.bundle import GOLDEN_TOLERANCE, Bundle, OnnxNetworks, replay_golden

    bundle = Bundle.load(folder)
    differences = replay_golden(bundle, OnnxNetworks(bundle, device))
    worst = max(differences, key=lambda graph: differences[graph])
    if not differences[worst] <= GOLDEN_TOLERANCE:
        raise ModelError(
            f"{worst} differs by {differences[worst]:.2g} from its stored score (allowed {GOLDEN_TOLERANCE:g}): this "
            "ONNX Runtime computes something else; try another version or --device cpu"
        )
    return f"replayed, largest difference {differences[worst]:.1g} ({worst})"
