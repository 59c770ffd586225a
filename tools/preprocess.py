"""Preprocess every file of a manifest, once, into a cache that training reads: `avdetect preprocess`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("preprocess"))
