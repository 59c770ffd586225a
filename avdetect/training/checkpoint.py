"""Checkpoints that are whole or absent, and that only the run that wrote them continues from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from avdetect.errors import ModelError
from avdetect.files import replacing

ADVICE = "name a new --run folder, or delete it to train anew"


def write_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Replace `path` in one go: after a kill or a power cut there is the new checkpoint or the old one.

    identity: plain values that must be equal when the run goes on; state: tensors and plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync=True) as file:
        torch.save({"identity": dict(identity), "state": dict(state)}, file)


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The state in `path`, on the CPU. Raises ModelError when it is damaged or was written under another identity."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        theirs, state = dict(saved["identity"]), dict(saved["state"])
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        raise ModelError(f"{path} is damaged, or no checkpoint of this version; {ADVICE}") from error
    differing = [key for key in theirs | dict(identity) if theirs.get(key) != identity.get(key)]
    if differing:
        words = ", ".join(f"{key} {theirs.get(key)} (here {identity.get(key)})" for key in differing)
        raise ModelError(f"{path} is of a run with {words}; {ADVICE}")
    return state
