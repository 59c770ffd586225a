"""The scoring environment, run by its own interpreter: small enough, and free of what only training needs."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

LIMIT_BYTES = 1.3e9
FORBIDDEN = ("torch", "torchaudio", "torchvision", "timm", "lightning", "librosa")

size = sum(os.lstat(p).st_size for p in Path(sys.prefix).rglob("*") if p.is_file() and not p.is_symlink())
present = [name for name in FORBIDDEN if importlib.util.find_spec(name)]
nvidia = [d.name for d in importlib.metadata.distributions() if d.name.lower().startswith("nvidia")]
print(f"{size / 1e9:.2f} GB installed; training packages: {present or 'none'}; CUDA packages: {nvidia or 'none'}")
if size > LIMIT_BYTES or present or nvidia:
    sys.exit("the scoring install is too large or carries what it must not")
