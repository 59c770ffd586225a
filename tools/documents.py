"""Result tables of the READMEs and MODEL_CARD, generated from metrics.csv of an evaluation: no number there is typed.

    python tools/documents.py --out results README.md MODEL_CARD.md

A document holds the markers

    <!-- results: outputs -->
    <!-- end results -->

and whatever stands between them is replaced. The name may be followed by a part of the manifest (`outputs dev`); else
it is the one that the evaluation's report shows first. A document that reports several evaluations gives each a label,
`<!-- results of before: outputs -->`, and only the markers with the given label are replaced.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from avdetect.cli.console import exit_code, kept
from avdetect.errors import ConfigError
from avdetect.extras import script_imports
from avdetect.files import write_whole

with script_imports("documents", "evaluate"):
    import pandas as pd

    from avdetect.evaluation.report import SUMMARY
    from avdetect.evaluation.views import VIEWS, View, view

MARKER = re.compile(r"^([ \t]*<!-- (?:results(?: of [\w-]+)?:.*|end results) -->[ \t]*)$", re.MULTILINE)
BEGIN, END = re.compile(r"<!-- results(?: of ([\w-]+))?: *(.*?) *-->"), "<!-- end results -->"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the evaluation")
    parser.add_argument("--label", default="", help="fill the markers of this label")
    parser.add_argument("documents", type=Path, nargs="+")
    args = parser.parse_args(argv)
    return exit_code(lambda: update_documents(args.out, args.documents, args.label), name="documents", usage=1)


def results_table(folder: Path, name: str, part: str = "") -> str:
    """The Markdown table `name` (one of VIEWS) of the evaluation in `folder`. Raises ConfigError for what it lacks."""
    if name not in VIEWS:
        raise ConfigError(f"there is no results table {name!r}; known ones: {', '.join(VIEWS)}")
    try:
        metrics = pd.read_csv(folder / "metrics.csv", keep_default_na=False, na_values=[""])
        part = part or str(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["parts"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = f"holds no metrics.csv and {SUMMARY} ({error})"
        raise ConfigError(f"{folder} {reason}: run avdetect evaluate with --out {folder}") from error
    if part not in set(metrics["part"]):
        known = ", ".join(sorted(metrics["part"].unique()))
        raise ConfigError(f"{folder} did not measure the part {part!r} of its manifest; it has {known}")
    shown = view(name, metrics, part)
    if not shown.rows:
        raise ConfigError(f"{folder} holds no measurement for the results table {name!r}: evaluate more, or drop it")
    return markdown(shown)


def markdown(view: View) -> str:
    rules = ["---" if i < view.texts else "---:" for i in range(len(view.columns))]
    rows = [view.columns, rules, *view.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def update_documents(folder: Path, documents: Sequence[Path], label: str = "") -> list[Path]:
    """Replace what stands between the markers with this label in each document; returns the documents that changed.

    All are read and made before one is written. Raises ConfigError, naming document and line, for what cannot be done.
    """
    made = {path: _updated(path, folder, label) for path in documents}
    changed = [path for path, text in made.items() if text != path.read_text(encoding="utf-8")]
    for path, text in made.items():
        if path in changed:
            with kept(path, "it is as it was"):
                write_whole(path, text.encode())
        print(f"{path}: {'updated' if path in changed else 'up to date'}")
    return changed


def _updated(path: Path, folder: Path, label: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    pieces = MARKER.split(text)  # text, then in turn: a marker, what it is about, its end, other text
    for at in range(1, len(pieces), 4):
        where = f"{path}:{''.join(pieces[:at]).count(chr(10)) + 1}"
        marker = BEGIN.fullmatch(pieces[at].strip())
        if not marker:
            raise ConfigError(f"{where}: `{END}` without a `<!-- results: NAME -->` before it")
        if len(pieces) < at + 3 or pieces[at + 2].strip() != END:
            raise ConfigError(f"{where}: the results that begin here have no `{END}`")
        if (marker[1] or "") == label:
            name, _, part = marker[2].partition(" ")
            try:
                pieces[at + 1] = "\n" + results_table(folder, name, part.strip())
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
    return "".join(pieces)


if __name__ == "__main__":
    raise SystemExit(main())
