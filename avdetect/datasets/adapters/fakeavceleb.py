"""FakeAVCeleb v1.2 (Khalid et al., 2021, arXiv 2108.05080): face, voice, or both are fake; one real video a person."""

from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import REAL, Labels, Listing, Rows

CATEGORIES: dict[tuple[str, str], Labels] = {
    ("A", "RealVideo-RealAudio"): REAL,
    ("B", "RealVideo-FakeAudio"): (1, 0, 1),
    ("C", "FakeVideo-RealAudio"): (1, 1, 0),
    ("D", "FakeVideo-FakeAudio"): (1, 1, 1),
}
HEADER = ("source", "method", "category", "type", "path")


def fakeavceleb(root: Path) -> Listing:
    """`meta_data.csv` beside the four folders of categories. Group = source person; no official split.

    Each line of the CSV ends in a comma: `path` is the file's name and the tenth cell, which has no name, its folder.
    """
    rows = Rows(root, "fakeavceleb")
    table = min(rows.named("meta_data.csv"), key=lambda path: path.count("/"), default="meta_data.csv")
    base = PurePosixPath(table).parent
    lines = [(*line[:4], _locate(rows, base, line[5], line[4])) for line in rows.csv(table, HEADER)]
    reals: dict[str, set[str]] = {}
    for source, _, category, _, file in lines:
        if category == "A":
            reals.setdefault(source, set()).add(file)
    for source, method, category, kind, file in lines:
        labels = CATEGORIES.get((category, kind))
        if labels is None:
            rows.problem("unknown label", file, f"category {category!r}, type {kind!r}")
        elif labels == REAL:
            rows.add(file, labels, source)
        else:
            own = sorted(reals.get(source, ()))
            rows.add(file, labels, source, method=method, original=own[0] if len(own) == 1 else "")
    return rows.listing()


def _locate(rows: Rows, base: PurePosixPath, folder: str, name: str) -> str:
    """The folder is written from above the dataset (`FakeAVCeleb/RealVideo-...`), whatever yours is called."""
    parts = PurePosixPath(folder.strip()).parts
    return rows.first(*(str(base.joinpath(*parts[skip:], name)) for skip in range(1 if parts else 0, -1, -1)))
