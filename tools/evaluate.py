"""Measure what a bundle can do on the files of a manifest; the same as `avdetect evaluate`.

    python tools/evaluate.py my.parquet --out results
    python tools/evaluate.py my.parquet --out results --bundle my_bundle --cache cache --out-of-fold
    python tools/evaluate.py my.parquet --out results --beside "plain CNN=other_results"
    python tools/evaluate.py --out results --update-docs README.md avdetect/evaluation/README.md MODEL_CARD.md

--update-docs, the last option, writes the tables of the evaluation in --out into documents, between their markers
`<!-- results: NAME -->` and `<!-- end results -->`; with a manifest before it, after evaluating. With --label LABEL
only the markers `<!-- results of LABEL: NAME -->` are filled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from avdetect import cli
from avdetect.errors import AVDetectError
from avdetect.extras import importing

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--update-docs", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--label", default="")
    parser.add_argument("--out", type=Path)
    known, rest = parser.parse_known_args(arguments)
    if "--help" in rest:
        print(__doc__)
    if rest or not known.update_docs:
        code = cli.run(["evaluate", *rest, *(["--out", str(known.out)] if known.out else [])])
        if code or not known.update_docs:
            return code
    if known.out is None:
        print("evaluate: --update-docs needs --out DIR, the folder of the evaluation", file=sys.stderr)
        return EXIT_USAGE
    return update(known.out, known.update_docs, known.label)


def update(folder: Path, documents: Sequence[Path], label: str = "") -> int:
    """Write the results into the documents."""
    try:
        with importing("evaluate", "--update-docs"):
            from documents import update_documents
        changed = update_documents(folder, documents, label)
    except (AVDetectError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return EXIT_FAILED
    for path in documents:
        print(f"{path}: {'updated' if path in changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
