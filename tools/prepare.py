"""Make a manifest of a dataset in its own layout, and a report of what it holds: `avdetect prepare`."""

from avdetect.cli import run_script

if __name__ == "__main__":
    raise SystemExit(run_script("prepare"))
