"""Measure what a bundle can do on the files of a manifest: `avdetect evaluate`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("evaluate"))
