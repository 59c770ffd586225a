"""The scoring environment, run by its own interpreter: small enough, and free of what only an extra needs."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

LIMIT_BYTES = 700e6
FORBIDDEN = (
    *("torch", "torchaudio", "torchvision", "timm", "lightning", "librosa", "onnx", "scipy", "sklearn", "pandas"),
    *("matplotlib", "pyarrow", "insightface", "skimage", "networkx", "tifffile"),
)

size = sum(os.lstat(p).st_size for p in Path(sys.prefix).rglob("*") if p.is_file() and not p.is_symlink())
present = [name for name in FORBIDDEN if importlib.util.find_spec(name)]
nvidia = [d.name for d in importlib.metadata.distributions() if d.name.lower().startswith("nvidia")]
print(f"{size / 1e6:.0f} MB installed; packages of extras: {present or 'none'}; CUDA packages: {nvidia or 'none'}")
if size > LIMIT_BYTES or present or nvidia:
    sys.exit("the scoring install is too large or carries what it must not")
