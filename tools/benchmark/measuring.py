"""What the benchmarks share: whole processes measured, clips rendered, facts of the machine, tables."""

import contextlib
import importlib.metadata
import os
import platform
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from avdetect.jobs.process import children
from avdetect.media import ffmpeg_path

SAMPLE = Path(__file__).parents[2] / "avdetect" / "weights" / "sample" / "sample.mp4"
LOOK_SECONDS = 0.05  # between two looks at the memory of a process tree


@dataclass
class Usage:
    cpu_seconds: float = 0.0  # user + system, of the process and of all that it waited for, as the kernel counts them
    wall_seconds: float = 0.0
    peaks: dict[str, float] = field(default_factory=dict)  # MiB by name of the program: the largest such process
    tree_mib: float = 0.0  # the largest sum over the tree at one look; what processes share counts in each
    stdout: str = ""

    def peak(self, program: str = "") -> float:
        """MiB of the largest process whose name begins with `program`."""
        return max((mib for name, mib in self.peaks.items() if name.startswith(program)), default=0.0)


def measure(command: list[str], accepted: tuple[int, ...] = (0,)) -> Usage:
    """Run `command` to its end. Ends this program when its exit status is none of the `accepted` ones."""
    used = Usage()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        end = os.pidfd_open(process.pid)
        while not select.select([end], [], [], LOOK_SECONDS)[0]:
            _look(process.pid, used)
        used.wall_seconds = time.perf_counter() - began
        os.close(end)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        used.cpu_seconds = usage.ru_utime + usage.ru_stime
        out.seek(0), err.seek(0)
        used.stdout = out.read()
        if process.returncode not in accepted:
            sys.exit(f"{' '.join(command)} exited with {process.returncode}\n{err.read()[-2000:]}")
    return used


def _look(root: int, used: Usage) -> None:
    """Take the memory of the tree below `root` into `used`. rusage would count what a parent held as its child's."""
    total = 0.0
    for process in tree(root):
        with contextlib.suppress(OSError):  # it has ended since
            name = Path(f"/proc/{process}/comm").read_text().strip()
            used.peaks[name] = max(used.peaks.get(name, 0.0), memory_mib(process, "VmHWM"))
            total += memory_mib(process)
    used.tree_mib = max(used.tree_mib, total)


def tree(process: int) -> Iterator[int]:
    yield process
    for child in children(process):
        yield from tree(child)


def memory_mib(process: int, which: str = "VmRSS") -> float:
    """Of a process; none once it has ended. Raises OSError where there is no such process."""
    kib = re.search(rf"^{which}:\s*(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(kib[1]) / 1024 if kib else 0.0


def render(target: Path, seconds: float, height: int, number: int = 0) -> None:
    """A talking face in H.264 and AAC, 16:9 and 25 fps: the sample clip enlarged and looped; each `number` has a start
    and a grain of its own. What is longer than ten seconds repeats the first ten, without encoding them again."""
    width = height * 16 // 9 // 2 * 2
    grain = f"noise=alls=4:allf=t:all_seed={123457 + number}"
    picture = f"scale={height}:{height}:flags=lanczos,pad={width}:{height}:(ow-iw)/2:0,{grain}"
    codecs = "-r 25 -c:v libx264 -preset medium -crf 20 -pix_fmt yuv420p -c:a aac".split()
    once = target if seconds <= 10 else target.with_name(f"once_{target.name}")
    source = ["-stream_loop", "1", "-ss", f"{number % 10 * 0.2:.1f}", "-i", str(SAMPLE)]
    ffmpeg(*source, "-vf", picture, *codecs, "-t", f"{min(seconds, 10):g}", str(once))
    if once != target:
        ffmpeg("-stream_loop", "-1", "-i", str(once), "-c", "copy", "-t", f"{seconds:g}", str(target))
        once.unlink()


def ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_path(), "-v", "error", "-nostdin", "-y", *arguments], check=True)


def machine() -> dict[str, str]:
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = subprocess.run([ffmpeg_path(), "-version"], capture_output=True, text=True, check=True).stdout
    packages = {name: importlib.metadata.version(name) for name in ("onnxruntime", "numpy", "opencv-python-headless")}
    return packages | {
        "cpu": model[1] if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_gib": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "load_at_start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "niceness": str(os.nice(0)),
        "python": platform.python_version(),
        "ffmpeg": version.split()[2],
    }


class Table:
    """CSV on standard output; the machine's facts stand above it as `# key: value`."""

    def __init__(self) -> None:
        self._empty = True
        for name, value in machine().items():
            print(f"# {name}: {value}")

    def row(self, **values: float | str) -> None:
        if self._empty:
            print(",".join(values))
        self._empty = False
        print(",".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values.values()), flush=True)
