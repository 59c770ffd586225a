"""Train the streams and the fusion on a cache of preprocessed clips, and export a bundle: `avdetect train`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("train"))
