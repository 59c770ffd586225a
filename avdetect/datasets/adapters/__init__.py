"""One adapter a dataset: its own folder in, a table of the manifest's columns and what could not be read out.

`ADAPTERS` maps the name on the command line of avdetect prepare to a function of the dataset's folder (of the list
itself for `csv`). What all of them keep is tested in tests/test_adapters.py, on the trees of tests/dataset_trees.toml.
"""

from collections.abc import Callable
from pathlib import Path

from avdetect.datasets.adapters.by_name import avlips, celebdf, kodf
from avdetect.datasets.adapters.dfdc import dfdc, dfdc_preview, dfdc_test
from avdetect.datasets.adapters.faceforensics import faceforensics
from avdetect.datasets.adapters.fakeavceleb import fakeavceleb
from avdetect.datasets.adapters.generic import folder, table
from avdetect.datasets.adapters.listing import Listing, Problem
from avdetect.datasets.adapters.partial import avdeepfake1m, lavdf

__all__ = ["ADAPTERS", "Listing", "Problem"]

ADAPTERS: dict[str, Callable[[Path], Listing]] = {
    "dfdc": dfdc,
    "dfdc-test": dfdc_test,
    "dfdc-preview": dfdc_preview,
    "fakeavceleb": fakeavceleb,
    "faceforensics": faceforensics,
    "celebdf": celebdf,
    "lavdf": lavdf,
    "avdeepfake1m": avdeepfake1m,
    "kodf": kodf,
    "avlips": avlips,
    "csv": table,
    "folder": folder,
}
