"""Export the bundle of a finished training run: `avdetect export`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("export"))
