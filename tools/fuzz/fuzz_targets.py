"""Every fuzz target, and the contract that they share: of any bytes, a result or one of our typed errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_bundles
import fuzz_datasets
import fuzz_media
import fuzz_tables

from avdetect.errors import AVDetectError


@dataclass(frozen=True)
class Target:
    """`run` takes the bytes, and a folder of its own for what it must write."""

    run: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes, folder: Path) -> bool:
        """Whether `data` is accepted. Whatever `run` raises besides AVDetectError is a finding."""
        try:
            self.run(data, folder)
        except AVDetectError as error:
            if str(error):
                return False
            raise  # an error says what happened and what to do
        return True


TARGETS = {
    name: Target(run, seeds)
    for module in (fuzz_media, fuzz_bundles, fuzz_tables, fuzz_datasets)
    for name, (run, seeds) in module.TARGETS.items()
}
