"""Libraries that only an extra brings: what to install, and one error where they are missing or cannot be imported."""

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from avdetect.errors import ToolError

_EVALUATE = ("matplotlib", "PIL", "ffmpeg", "pandas", "pyarrow", "scipy", "sklearn")
# Extra -> the modules that avdetect imports of it. tests/test_install.py holds this to pyproject.toml.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "scrfd": ("insightface",),
    "evaluate": _EVALUATE,
    "train": (
        *("torch", "torchvision", "torchaudio", "lightning", "timm", "librosa", "onnx", "pyworld", "safetensors"),
        *("tensorboard", *_EVALUATE),
    ),
    "ray": ("ray",),
    "serve": ("fastapi", "prometheus_client", "pydantic", "python_multipart", "uvicorn"),
}
_INSTALL = "pip install -c .ci/constraints.txt"
# Two builds of one library own the same folder: the last one overwrites the first, and uninstalling either takes files
# of the other away. So both go, and one comes back.
ONE_OPENCV = f"pip uninstall -y opencv-python opencv-python-headless && {_INSTALL} --no-deps opencv-python-headless"
ONE_ONNXRUNTIME = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu"
_THEN = {"scrfd": f" && {ONE_OPENCV}", "gpu": f" && {ONE_ONNXRUNTIME}"}


def how_to_install(extra: str) -> str:
    """The words that end a message. No package index holds avdetect: only a checkout can be installed."""
    return f"from the checkout: {_INSTALL} '.[{extra}]'{_THEN.get(extra, '')}"


def require(extra: str, purpose: str) -> None:
    """Raises ToolError, naming what is missing, where the extra is not installed. Imports nothing."""
    missing = [name for name in LIBRARIES.get(extra, ()) if find_spec(name) is None]
    if missing:
        raise ToolError(f"{purpose} needs {', '.join(missing)}; {how_to_install(extra)}")


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def importing(extra: str, purpose: str) -> Iterator[None]:
    """Around import statements: where the extra is missing, or does not import, they end in a ToolError."""
    require(extra, purpose)
    try:
        yield
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # built for another version, it may be any
        name = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        if name == "avdetect":
            raise  # a mistake of ours
        if isinstance(error, ModuleNotFoundError):
            raise ToolError(f"{purpose} needs {name}; {how_to_install(extra)}") from error
        reason = str(error).strip().partition("\n")[0]
        raise ToolError(
            f"{purpose} needs the extra {extra}, which is installed but cannot be imported ({reason}); see "
            f"`avdetect doctor`. Versions that fit each other come {how_to_install(extra)}"
        ) from error


@contextmanager
def script_imports(script: str, extra: str) -> Iterator[None]:
    """`importing` at the head of a script. The error is one line, and ends it: there is no `main` yet to report it."""
    try:
        with importing(extra, f"tools/{script}.py"):
            yield
    except ToolError as error:
        sys.exit(f"{script}: {error}")
