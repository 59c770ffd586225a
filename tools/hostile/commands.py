"""Whole commands: folders of good and bad files, lists, full disks, little of everything. Each is a row as well.

How much memory they hold is not measured: their workers are those of the other cases.
"""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.measuring import tree

from hostile.campaign import MOST_SECONDS, TYPED, Campaign, Row, emptied, listing
from hostile.case import TABLE, Case, Place
from hostile.worker import adopt_orphans, forbid_network

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, dict[str, Any]] = TABLE["commands"]
_LIMITS = "max_duration_seconds: 30\nmax_wall_seconds: 12\nstall_seconds: 6\nmax_file_seconds: 20\n"
_GOOD = ("seed.mp4", "seed.wav", "seed.mkv")
_START_SECONDS = 30.0  # allowed beside, for every start of a command and its workers


def run(campaign: Campaign, cases: list[Case]) -> Iterator[Row]:
    """Every command, one after the other, in one folder with good files and what the cases make."""
    home = emptied(campaign.folder / "commands")
    _fill(home / "files", campaign, cases)
    (home / "limits.yaml").write_text(_LIMITS)
    adopt_orphans()
    try:
        for name, command in COMMANDS.items():
            if full := command.get("full"):
                (home / full).symlink_to("/dev/full")
            yield _run(campaign, name, command, home)
    finally:
        adopt_orphans(False)
    emptied(home)


def _fill(folder: Path, campaign: Campaign, cases: list[Case]) -> None:
    folder.mkdir()
    for number, name in enumerate(_GOOD):
        (folder / f"{number:02d}{Path(name).suffix}").write_bytes((campaign.seeds / name).read_bytes())
    for number, case in enumerate(cases, len(_GOOD)):
        making = emptied(folder.parent / "making")
        made = Path(case.make(Place(making, campaign.seeds, case.rng(campaign.seed), campaign.secret.path)))
        made.rename(folder / f"{number:02d} {made.name[:60]}.mp4")
    seed = {"seed": str(campaign.seeds / "seed.wav")}
    subprocess.run(["bash", "-ec", TABLE["beside"]["script"]], cwd=folder, env=os.environ | seed, check=True)


def _run(campaign: Campaign, name: str, command: dict[str, Any], home: Path) -> Row:
    before, opened, others = listing(home), campaign.secret.opened(), _children()
    temporary, count = emptied(campaign.folder / "temporary"), len(files_of(home))
    first, last = command.get("shell", (":", ""))
    words = ["--limits", "limits.yaml", "--device", "cpu", *command["line"].replace("{}", "files").split()]
    score = ["-", sys.executable, "-m", "avdetect.cli", "score", *words]
    given = b"\0".join(os.fsencode(path) for path in files_of(home)) if "-" in words else b""
    changed = {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "HOME": str(temporary)}
    changed["PYTHONDONTWRITEBYTECODE"] = "1"  # a write to a folder of Python's is none of ours
    most, began = _START_SECONDS + MOST_SECONDS * (count + 2), time.monotonic()
    inner = ["timeout", "-s", "KILL", str(most), "bash", "-c", f'{first}; exec "$@" {last}', *score]
    where: dict[str, Any] = {"cwd": home, "env": os.environ | changed, "preexec_fn": forbid_network}
    done = subprocess.run(inner, input=given, capture_output=True, **where)
    said = done.stderr.decode(errors="replace").strip()
    row = Row("whole commands", name, f"exit {done.returncode}", time.monotonic() - began, says=said[:300])
    allowed = {str(home / f"{word}{end}") for word in [*words, command.get("full", "")] for end in ("", ".journal")}
    watched = (
        (_orphans(others), "processes left"),
        (sorted((listing(home) - before - allowed) | listing(temporary))[:3], "files left"),
        (row.seconds > most, "it went on for too long"),
        (campaign.secret.opened() > opened, "the secret file was opened"),
    )
    judged = (*_judge(command, done.returncode, said, home), *watched)
    row.violations = [f"{what}: {wrong}" for wrong, what in judged if wrong]
    return row


def _judge(command: dict[str, Any], code: int, said: str, home: Path) -> Iterator[tuple[Any, str]]:
    expected = code == command.get("code", 1) and command.get("says", "") in said and "Traceback" not in said
    yield not expected and f"{said[-500:]!r}", f"exit {code}"
    yield len(said.splitlines()) > 1 and said[:500], "more than a line"
    if command.get("rows"):
        with (home / command["line"].split()[-1]).open(newline="") as file:
            rows = list(csv.DictReader(file))
        good = [row for row in rows if row["path"].endswith(".wav") or row["path"][6:8] in ("00", "01", "02")]
        yield len(rows) != len(files_of(home)) and f"{len(rows)}", f"rows for {len(files_of(home))} files"
        yield [row["path"] for row in good if row["status"] != "scored"], "good files that failed"
        yield {row["error"] for row in rows} - TYPED - {""}, "errors that are no file's"
        # The status of SIGSYS.
        yield any("status -31" in row["reason"] + row["warnings"] for row in rows), "ffmpeg asked for the network"


def files_of(home: Path) -> list[Path]:
    """What a folder holds for scoring: not the folder in it."""
    return sorted(path for path in (home / "files").iterdir() if path.is_symlink() or not path.is_dir())


def _children() -> set[int]:
    return set(tree(os.getpid())) - {os.getpid()}


def _orphans(before: set[int]) -> list[int]:
    """Processes of a command that has ended. Those that end within two seconds are none: multiprocessing's tracker."""
    deadline = time.monotonic() + 2
    while (left := _children() - before) and time.monotonic() < deadline:
        for pid in left:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    return sorted(_children() - before)
