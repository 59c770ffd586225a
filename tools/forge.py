"""Forge the face, the voice or their match inside a segment of genuine videos: `avdetect forge`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("forge"))
