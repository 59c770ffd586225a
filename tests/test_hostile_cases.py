"""Some of the cases of tools/hostile_campaign.py, of every family; and that its watch sees what it is there to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hostile_sabotage
import pytest
from hostile import campaign as campaigns
from hostile import commands, every_case
from hostile.campaign import Campaign, Secret
from hostile.case import TABLE, Case, Place, render
from hostile.worker import adopt_orphans, can_forbid, forbid_network

from avdetect.media import ffmpeg_path

pytestmark = pytest.mark.skipif(not can_forbid(), reason="needs seccomp on x86_64 or aarch64")
SLOW = "long"  # the family whose files take seconds to make
# Formats that no case names, besides the header fields of theirs: whole campaigns damage them too.
LEFT_OUT = "h264 hevc obu ivf gif w64 caf au aac flac ogg opus m4a ac3 eac3 amr mpg asf mxf m4v".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        for table in (TABLE["seeds"], TABLE["fields"]):
            for name in LEFT_OUT:
                patch.delitem(table, f"seed.{name}", raising=False)
        render(folder / "seeds")
        yield folder


def good(place: Place, name: str = "good") -> Path:
    path = place.folder / f"{name}.wav"
    path.write_bytes(place.seed("seed.wav"))
    return path


def playlist(place: Place) -> Path:
    path = place.folder / "open_anything.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    return path


def test_bad_files_of_every_family_and_what_must_be_scored_or_said(folder: Path) -> None:
    seen = set()
    with Campaign(folder) as campaign:
        for case in every_case(campaign.seeds, 38)[1::2]:  # of each family the one in the middle
            if case.family != SLOW:
                row = campaign.run(case)
                seen.add(row.family)
                assert row.violations == [], row
        assert len(seen) == 18
        row = campaign.run(Case("x", "scored", lambda place: "/nowhere", scored=True))
        assert "it can be scored" in row.violations[0]
        row = campaign.run(Case("x", "error", good, error="absent"))
        assert "not the error that says 'absent'" in row.violations[0]


def test_whole_commands_over_a_folder_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("two workers", "hardly a descriptor")
    monkeypatch.setattr(commands, "COMMANDS", {name: commands.COMMANDS[name] for name in chosen})
    with Campaign(folder) as campaign:
        cases = [case for case in every_case(campaign.seeds, 19) if case.only_bytes and case.family != SLOW]
        for row in commands.run(campaign, cases[::4]):
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


def test_a_product_that_does_wrong_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Campaign(folder, sabotage=hostile_sabotage.misbehave) as campaign:

        def violations(name: str, make: Callable[[Place], Path] | None = None) -> list[str]:
            return campaign.run(Case("x", name, make or partial(good, name=name))).violations

        for name, make, said in (
            ("have_a_bug", None, "not a typed error"),
            ("playlist", playlist, "ffmpeg asked for the network"),
            ("call_somebody", None, "the network was asked for"),
        ):
            (found,) = violations(name, make)
            assert said in found
        found = "\n".join(violations("leave_things"))
        for said in ("files left open", "processes left", "left.txt", "b'noise"):
            assert said in found
        monkeypatch.setattr(campaigns, "MOST_SECONDS", 0.5)
        monkeypatch.setattr(campaigns, "MOST_MEGABYTES", 1)
        found = violations("never_end")
        assert "the worker gave no answer" in found
        assert [said[-1] for said in found if said.startswith("took ")] == ["s", "B"], "seconds, and MB"


def test_an_orphan_of_a_command_is_seen_and_one_that_is_about_to_end_is_none() -> None:
    others = commands._children()
    adopt_orphans()
    try:
        subprocess.run(["bash", "-c", "(sleep 0.1 &); exit 0"])
        assert commands._orphans(others) == []
        subprocess.run(["bash", "-c", "setsid sleep 60 & exit 0"])
        (orphan,) = commands._orphans(others)
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)
    finally:
        adopt_orphans(False)


def test_a_file_that_is_opened_is_caught(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "secret.txt")
    (tmp_path / "list").write_text(f"ffconcat version 1.0\nfile '{secret.path}'\n")
    assert secret.opened() == 0
    concat = [ffmpeg_path(), "-v", "error", "-nostdin", "-f", "concat", "-safe", "0", "-i", str(tmp_path / "list")]
    subprocess.run([*concat, "-f", "null", "-"], capture_output=True, timeout=60)
    assert secret.opened() > 0
    secret.close()
