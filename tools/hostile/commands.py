"""Whole commands: folders of good and bad files, lists, full disks, little of everything. Each is a row as well.

How much memory they hold is not measured: their workers are those of the other cases.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hostile.campaign import MOST_SECONDS, Campaign, Row, children_of, listing, remove
from hostile.case import Case, Place
from hostile.guard import adopt_orphans, forbid_network

ROOT = Path(__file__).parents[2]
_LIMITS = "max_duration_seconds: 30\nmax_wall_seconds: 12\nstall_seconds: 6\nmax_file_seconds: 20\n"
_GOOD = ("seed.mp4", "seed.wav", "seed.mkv")
_START_SECONDS = 30.0  # allowed beside, for every start of a command and its workers


@dataclass(frozen=True)
class Command:
    """A command line, what it is run under, and what must be true of its end."""

    name: str
    arguments: str  # {folder} holds the good and the bad files
    code: int
    says: str = ""  # a part of the one line on standard error that an error has
    before: Callable[[Path], None] = lambda folder: None  # run in the folder it is started from
    first: str = ""  # run before it by bash: ulimit, redirections
    redirections: str = ""
    rows: str = ""  # the CSV table that must have a row a file
    given: bool = False  # whether the names come on standard input
    files: frozenset[str] = field(default_factory=frozenset)  # that it may leave


def _out(name: str) -> frozenset[str]:
    return frozenset((name, f"{name}.journal"))


def _full(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to("/dev/full")


COMMANDS = (
    Command("two workers", "{folder} --workers 2 --out t.csv", 1, rows="t.csv", files=_out("t.csv")),
    Command("two workers, again", "{folder} --workers 2 --out t.csv", 1, rows="t.csv", files=_out("t.csv")),
    Command("one worker, JSON", "{folder} --json --out t.json", 1, files=_out("t.json")),
    Command("one worker, Parquet", "{folder} --out t.parquet", 1, files=_out("t.parquet")),
    Command("a list on standard input", "- --null --out l.csv", 1, rows="l.csv", given=True, files=_out("l.csv")),
    Command("nothing but standard output", "{folder} --workers 2", 1),
    Command("a full disk for the table", "{folder} --out f.csv", 1, "cannot write f.csv: No space", _full("f.csv"),
            files=_out("f.csv")),
    Command("a full disk for JSON", "{folder} --out f.jsonl", 1, "cannot write f.jsonl", _full("f.jsonl"),
            files=_out("f.jsonl")),
    Command("a full disk for the submission", "{folder} --kaggle k.csv", 1, "cannot write k.csv", _full("k.csv"),
            files=_out("k.csv")),
    Command("a journal that is a device", "{folder} --out d.csv", 2, "no regular file", _full("d.csv.journal"),
            files=frozenset(("d.csv.journal",))),
    Command("a disk that fills up", "{folder} --out u.csv", 1, "what is scored is kept, run again",
            first="ulimit -f 4", files=_out("u.csv")),
    Command("the same disk, emptied", "{folder} --out u.csv", 1, rows="u.csv", files=_out("u.csv")),
    Command("a full standard output", "{folder}", 1, "cannot write to standard output", redirections=">/dev/full"),
    Command("a closed standard output", "{folder} --out c.csv", 1, redirections=">&-", rows="c.csv",
            files=_out("c.csv")),
    Command("a closed standard input", "{folder} --out i.csv", 1, redirections="<&-", rows="i.csv",
            files=_out("i.csv")),
    Command("few descriptors", "{folder} --out n.csv", 1, first="ulimit -n 32", rows="n.csv", files=_out("n.csv")),
    Command("hardly a descriptor", "{folder} --workers 2 --out h.csv", 1, "cannot start a scoring process",
            first="ulimit -n 12", files=_out("h.csv")),
    Command("no folder for temporary files", "{folder} --out p.csv", 1, first="export TMPDIR=/nowhere", rows="p.csv",
            files=_out("p.csv")),
    Command("an output folder that is a file", "{folder} --out {folder}/00.mp4/x.csv", 1, "cannot write"),
)  # fmt: skip


def fill(folder: Path, campaign: Campaign, cases: list[Case]) -> None:
    """A folder with good files, and with what the cases make, each under a number."""
    folder.mkdir()
    for number, name in enumerate(_GOOD):
        (folder / f"{number:02d}{Path(name).suffix}").write_bytes((campaign.seeds / name).read_bytes())
    for number, case in enumerate(cases, len(_GOOD)):
        place = folder.parent / "making"
        place.mkdir()
        made = Path(
            case.make(Place(place, campaign.seeds, case.rng(campaign.seed), campaign.canary.port, campaign.secret.path))
        )
        made.rename(folder / f"{number:02d} {made.name[:60]}.mp4")
        remove(place)
    os.mkfifo(folder / "fifo.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "nothing.mp4").symlink_to("nothing")
    (folder / "folder.mp4").mkdir()
    for odd in (b"new\nline.wav", b"-x.wav", b"quote'\".wav", b"\xff.wav"):
        (folder / os.fsdecode(odd)).write_bytes((campaign.seeds / "seed.wav").read_bytes())


def run(campaign: Campaign, cases: list[Case]) -> Iterator[Row]:
    """Every command, one after the other, in one folder."""
    home = campaign.folder / "commands"
    remove(home)
    home.mkdir()
    fill(home / "files", campaign, cases)
    (home / "limits.yaml").write_text(_LIMITS)
    adopt_orphans()
    try:
        for command in COMMANDS:
            command.before(home)
            yield _run(campaign, command, home)
    finally:
        adopt_orphans(False)
    remove(home)


def _run(campaign: Campaign, command: Command, home: Path) -> Row:
    before, opened, others = listing(home), campaign.secret.opened(), set(children_of(os.getpid()))
    temporary = campaign.folder / "temporary"
    remove(temporary)
    temporary.mkdir()
    words = command.arguments.format(folder="files").split()
    inner = [sys.executable, "-m", "avdetect.cli", "score", "--limits", "limits.yaml", "--device", "cpu", *words]
    script = f'{command.first or ":"}; exec "$@" {command.redirections}'
    given = b"\0".join(os.fsencode(path) for path in files_of(home)) if command.given else b""
    # No bytecode: a write to a folder of Python's is none of ours.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "HOME": str(temporary),
                                "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", script, "-", *inner], cwd=home, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=forbid_network,
    )  # fmt: skip
    most = _START_SECONDS + MOST_SECONDS * (len(files_of(home)) + 2)
    try:
        _, errors = process.communicate(given, timeout=most)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    seconds = time.monotonic() - began
    said = errors.decode(errors="replace").strip()
    row = Row("whole commands", command.name, f"exit {process.returncode}", seconds, 0, "", said[:300])
    row.violations += _judge(command, process, said, home)
    if orphans := _orphans(others):
        row.violations.append(f"processes left: {orphans}")
    allowed = {str(home / name) for name in command.files}
    if left := (listing(home) - before - allowed) | listing(temporary):
        row.violations.append(f"files left: {sorted(left)[:3]}")
    if seconds > most or campaign.canary.hits() or campaign.secret.opened() > opened:
        row.violations.append("it went on for too long, called the server, or opened the secret file")
    return row


def _judge(command: Command, process: subprocess.Popen[bytes], said: str, home: Path) -> Iterator[str]:
    if process.returncode != command.code or command.says not in said or "Traceback" in said:
        yield f"exit {process.returncode}: {said[-500:]}"
    if len(said.splitlines()) > 1:
        yield f"more than a line: {said[:500]!r}"
    if not command.rows:
        return
    with (home / command.rows).open(newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != len(files_of(home)):
        yield f"{len(rows)} rows for {len(files_of(home))} files"
    good = [row for row in rows if row["path"].endswith(".wav") or row["path"][6:8] in ("00", "01", "02")]
    if failed := [row["path"] for row in good if row["status"] != "scored"]:
        yield f"good files that failed: {failed}"
    if odd := {row["error"] for row in rows} - {"", "MediaError", "LimitError"}:
        yield f"errors that are no file's: {sorted(odd)}"
    if any("status -31" in row["reason"] + row["warnings"] for row in rows):  # SIGSYS
        yield "ffmpeg asked for the network"


def files_of(home: Path) -> list[Path]:
    """What a folder holds for scoring: not the folder in it."""
    return sorted(path for path in (home / "files").iterdir() if path.is_symlink() or not path.is_dir())


def _orphans(before: set[int]) -> list[int]:
    """Processes of a command that has ended. Those that end within two seconds are none: multiprocessing's tracker."""
    deadline = time.monotonic() + 2
    while True:
        for pid in set(children_of(os.getpid())) - before:
            os.waitpid(pid, os.WNOHANG)
        left = set(children_of(os.getpid())) - before
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(0.02)
