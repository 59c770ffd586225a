"""Some of the cases of tools/hostile_campaign.py, of every family; and that its watch sees what it is there to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hostile_sabotage
import pytest
from hostile import campaign as campaigns
from hostile import commands, every_case
from hostile.campaign import Campaign
from hostile.case import Case, Place, render
from hostile.guard import Secret, can_forbid, forbid_network

from avdetect.media import ffmpeg_path

pytestmark = pytest.mark.skipif(not can_forbid(), reason="needs seccomp on x86_64 or aarch64")
FEW = 57  # cases, of all families
SLOW = "long"  # the family whose files take seconds to make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    render(folder / "seeds")
    return folder


def good(place: Place) -> Path:
    path = place.folder / "good.wav"
    path.write_bytes(place.seed("seed.wav"))
    return path


def playlist(place: Place) -> Path:
    path = place.folder / "x.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    return path


def test_bad_files_of_every_family(folder: Path) -> None:
    seen = set()
    with Campaign(folder) as campaign:
        for case in every_case(campaign.seeds, FEW):
            if case.family != SLOW:
                row = campaign.run(case)
                seen.add(row.family)
                assert row.violations == [], row
    assert len(seen) == 18


def test_whole_commands_over_a_folder_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("two workers", "hardly a descriptor")
    monkeypatch.setattr(commands, "COMMANDS", {name: commands.COMMANDS[name] for name in chosen})
    with Campaign(folder) as campaign:
        cases = [case for case in every_case(campaign.seeds, 40) if case.only_bytes and case.family != SLOW]
        for row in commands.run(campaign, cases[::5]):
            assert row.violations == [], row


def test_a_socket_behind_the_filter_is_death() -> None:
    def status(code: str) -> int:
        return subprocess.run([sys.executable, "-c", code], preexec_fn=forbid_network, timeout=60).returncode

    assert status("import socket; socket.socketpair()") == 0
    for family in ("AF_INET", "AF_INET6", "AF_NETLINK"):
        assert status(f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)") == -signal.SIGSYS
    assert status("import socket; socket.getaddrinfo('canary.invalid', 80)") == -signal.SIGSYS
    rings = "import ctypes; ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(200))"  # io_uring_setup
    assert status(rings) == -signal.SIGSYS


@pytest.mark.parametrize(
    ("make", "sabotage", "said"),
    [
        (playlist, hostile_sabotage.let_ffmpeg_open_anything, ["ffmpeg asked for the network"]),
        (good, hostile_sabotage.call_somebody, ["the network was asked for"]),
        (good, hostile_sabotage.have_a_bug, ["not a typed error"]),
        (good, hostile_sabotage.leave_things_behind, ["files left open", "processes left", "left.txt", "b'noise"]),
    ],
)
def test_a_product_that_does_wrong_is_caught(
    folder: Path, make: Callable[[Place], Path], sabotage: Callable[[], None], said: list[str]
) -> None:
    with Campaign(folder, sabotage=sabotage) as campaign:
        violations = campaign.run(Case("x", "wrong", make)).violations
    assert [part for part in said if part not in "\n".join(violations)] == []
    assert len(said) > 1 or len(violations) == 1


def test_an_orphan_of_a_command_is_seen_and_one_that_is_about_to_end_is_none() -> None:
    code = """if True:
        import os, subprocess, time
        from hostile import commands, guard
        guard.adopt_orphans()
        subprocess.run(["bash", "-c", "(sleep 0.5 &); exit 0"])
        assert commands._orphans(set()) == []
        subprocess.run(["bash", "-c", "setsid sleep 60 & exit 0"])
        (orphan,) = commands._orphans(set())
        os.kill(orphan, 9)
    """
    environment = os.environ | {"PYTHONPATH": f"{commands.ROOT}{os.pathsep}{commands.ROOT / 'tools'}"}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)


def test_a_file_that_is_opened_is_caught(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "secret.txt")
    (tmp_path / "list").write_text(f"ffconcat version 1.0\nfile '{secret.path}'\n")
    assert secret.opened() == 0
    concat = [ffmpeg_path(), "-v", "error", "-nostdin", "-f", "concat", "-safe", "0", "-i", str(tmp_path / "list")]
    subprocess.run([*concat, "-f", "null", "-"], capture_output=True, timeout=60)
    assert secret.opened() > 0
    secret.close()


def test_time_and_memory_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(campaigns, "MOST_MEGABYTES", 1)
    with Campaign(folder, sabotage=hostile_sabotage.never_end) as campaign:
        row = campaign.run(Case("x", "sleep", good))
    assert "the worker gave no answer" in row.violations
    assert sum(said.startswith("took ") for said in row.violations) == 2  # seconds, and MB
    assert any(" MB" in said for said in row.violations)


def test_what_must_be_scored_and_what_must_be_said_are_judged(folder: Path) -> None:
    with Campaign(folder) as campaign:
        row = campaign.run(Case("x", "scored", lambda place: "/nowhere", scored=True))
        assert "it can be scored" in row.violations[0]
        row = campaign.run(Case("x", "error", good, error="absent"))
        assert "not the error that says 'absent'" in row.violations[0]
