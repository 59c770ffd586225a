"""FakeAVCeleb v1.2 (Khalid et al., 2021, arXiv 2108.05080): face, voice, or both are fake; one real video a person."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import Listing, Rows

CATEGORIES = {
    "A": ("RealVideo-RealAudio", (0, 0, 0)),
    "B": ("RealVideo-FakeAudio", (1, 0, 1)),
    "C": ("FakeVideo-RealAudio", (1, 1, 0)),
    "D": ("FakeVideo-FakeAudio", (1, 1, 1)),
}


def fakeavceleb(root: Path) -> Listing:
    """`meta_data.csv` beside the four folders of categories. Group = source person; no official split.

    Each line of the CSV ends in a comma: `path` is the file's name and the tenth cell, which has no name, its folder.
    """
    rows = Rows(root, "fakeavceleb")
    tables = sorted((f for f in rows.files if PurePosixPath(f).name == "meta_data.csv"), key=lambda f: f.count("/"))
    path = tables[0] if tables else "meta_data.csv"
    parsed = []
    for source, method, category, kind, name, folder in rows.csv(
        path, ("source", "method", "category", "type", "path")
    ):
        parsed.append((source, method, category, kind, _locate(rows, PurePosixPath(path).parent, folder, name)))
    reals: dict[str, set[str]] = {}
    for source, _, category, _, file in parsed:
        if category == "A":
            reals.setdefault(source, set()).add(file)
    for source, method, category, kind, file in parsed:
        expected, labels = CATEGORIES.get(category, ("", None))
        if labels is None or kind != expected:
            rows.problem("unknown label", file, f"category {category!r}, type {kind!r}")
        elif labels[0]:
            own = sorted(reals.get(source, ()))
            rows.add(file, labels, source, method=method, original=own[0] if len(own) == 1 else "")
        else:
            rows.add(file, labels, source)
    return rows.listing()


def _locate(rows: Rows, base: PurePosixPath, folder: str, name: str) -> str:
    """The folder is written from above the dataset (`FakeAVCeleb/RealVideo-...`), whatever yours is called."""
    parts = PurePosixPath(folder.strip()).parts
    return rows.first(*(str(base.joinpath(*parts[skip:], name)) for skip in range(1 if parts else 0, -1, -1)))
