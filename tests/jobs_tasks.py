"""Tasks for the tests of avdetect.jobs, in worker processes: the text of the file that is the item says what happens.

a number    it is the answer, after `SLOW` seconds
die         the process kills itself, whenever it meets the file
die once    … the first time only (it leaves FILE.died)
hang        for ever, with a child process (FILE.child)
wait        until it is something else
usage       a ConfigError
bug         an exception that is none of ours
print       prints what looks like messages, and writes them to every other descriptor that it finds
news        reports three numbers, then answers 1
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError, ModelError
from avdetect.jobs.process import Report, Work

SLOW = 0.02


def begin() -> Work:
    return work


def begin_badly() -> Work:
    raise ModelError("there are no weights")


def begin_dead() -> Work:
    os.kill(os.getpid(), signal.SIGKILL)
    return begin()


def work(path: str, report: Report) -> Any:
    text = Path(path).read_text()
    with open(f"{path}.log", "a") as log:  # who works on the file
        log.write(f"{os.getpid()}\n")
    if text == "die" or (text == "die once" and not os.path.exists(f"{path}.died")):
        Path(f"{path}.died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "hang":
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as child:
            Path(f"{path}.child").write_text(str(child.pid))
            time.sleep(3600)
    while text == "wait":
        time.sleep(0.05)
        text = Path(path).read_text()
    if text == "usage":
        raise ConfigError("that is no way to ask")
    if text == "bug":
        raise ZeroDivisionError("x")
    if text == "print":
        for message in ({"answer": 0}, {"fatal": "AVDetectError", "message": "m"}, {"ready": True}):
            print(json.dumps(message), flush=True)
            print(json.dumps(message), file=sys.stderr, flush=True)
        return {"fatal": "AVDetectError", "ready": True}
    if text == "news":
        for number in range(3):
            report(number)
        return 1
    time.sleep(SLOW)
    return float(text) if text[:1].isdigit() else 0.9  # "die once", once more
