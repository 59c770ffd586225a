"""One adapter a dataset: its own folder in, a table of the manifest's columns and what could not be read out.

`ADAPTERS` maps the name on the command line of avdetect prepare to a function of the dataset's folder (of the list
itself for `csv`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avdetect.datasets.adapters.avdeepfake1m import avdeepfake1m
from avdetect.datasets.adapters.avlips import avlips
from avdetect.datasets.adapters.celebdf import celebdf
from avdetect.datasets.adapters.corpus import corpus
from avdetect.datasets.adapters.deepfaketimit import deepfaketimit
from avdetect.datasets.adapters.dfdc import dfdc, dfdc_preview, dfdc_test
from avdetect.datasets.adapters.faceforensics import faceforensics
from avdetect.datasets.adapters.fakeavceleb import fakeavceleb
from avdetect.datasets.adapters.generic import folder, table
from avdetect.datasets.adapters.kodf import kodf
from avdetect.datasets.adapters.lavdf import lavdf
from avdetect.datasets.adapters.listing import Listing, Problem

__all__ = ["ADAPTERS", "Adapter", "Listing", "Problem"]

Adapter = Callable[[Path], Listing]

ADAPTERS: dict[str, Adapter] = {
    "dfdc": dfdc,
    "dfdc-test": dfdc_test,
    "dfdc-preview": dfdc_preview,
    "fakeavceleb": fakeavceleb,
    "faceforensics": faceforensics,
    "celebdf": celebdf,
    "lavdf": lavdf,
    "avdeepfake1m": avdeepfake1m,
    "deepfaketimit": deepfaketimit,
    "kodf": kodf,
    "avlips": avlips,
    "csv": table,
    "folder": folder,
    "corpus": corpus,
}
