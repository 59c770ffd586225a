"""Coverage-guided fuzzing of our own parsers with atheris: `python tools/fuzz TARGET [libFuzzer options]`.

    pip install -e '.[fuzz]'                                           # atheris: wheels for Linux on x86-64
    python tools/fuzz                                                  # the targets
    python tools/fuzz journal -max_total_time=300 -timeout=10 -rss_limit_mb=2048
    python tools/fuzz journal corpus/journal                           # keeps what it learns in a folder
    python tools/fuzz journal crash-1234                               # runs one input again

Anything but a typed error, a run longer than -timeout or more memory than -rss_limit_mb ends the run and leaves the
input in a file. What was found is kept in tests/test_fuzz_targets.py, which runs without atheris.
"""

import random
import sys
import tempfile
from pathlib import Path

from avdetect.extras import script_imports

with script_imports("fuzz", "fuzz"):
    import atheris


def main(arguments: list[str]) -> None:
    with atheris.instrument_imports(include=["avdetect", "fuzz_checks"]):
        from fuzz_targets import TARGETS, mutate

    if not arguments or arguments[0] not in TARGETS:
        print(f"usage: python tools/fuzz TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}", file=sys.stderr)
        sys.exit(2)
    name, *options = arguments
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(target.seeds):
            Path(seeds, str(number)).write_bytes(seed)
            target(seed, Path(folder))  # what is imported late must not count against the first input's time

        def one_input(data: bytes) -> None:
            try:
                target(data, Path(folder))
            except Exception:
                print(f"input: {data!r}", file=sys.stderr)  # libFuzzer cannot always write its file
                raise

        def mutator(data: bytes, max_size: int, seed: int) -> bytes:
            rng = random.Random(seed)
            return mutate(data, rng)[:max_size] if rng.random() < 0.5 else atheris.Mutate(data, max_size)

        corpora = [] if any(Path(option).is_file() for option in options) else [seeds]
        atheris.Setup([sys.argv[0], *options, *corpora], one_input, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
