"""Peak memory of a command of its own process, with a limit on what it may hold beside files that it maps.

`resident`: the most that was in memory, pages of mapped files included (VmHWM, as `ru_maxrss`). `anonymous`: the most that
was no page of a file, which is what cannot be given back without swap (RssAnon, looked at every 20 ms).
"""

import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

_EVERY = 0.02  # seconds


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak, seconds of wall time, how it ended, and what it said."""

    resident: int
    anonymous: int
    seconds: float
    code: int
    said: str


def peak(command: Sequence[str], *, limit: int | None = None, env: dict[str, str] | None = None) -> Peak:
    """Run a command to its end. `limit`: bytes of memory of its own that it may have (RLIMIT_DATA, which the kernel holds)."""

    def bounded() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=bounded, env=env)
    most = {"VmHWM": 0, "RssAnon": 0}
    while child.poll() is None:
        for name, value in _status(child.pid).items():
            most[name] = max(most[name], value)
        time.sleep(_EVERY)
    said = child.stderr.read() if child.stderr else ""
    return Peak(most["VmHWM"], most["RssAnon"], time.perf_counter() - began, child.returncode, said.strip())


def _status(pid: int) -> dict[str, int]:
    try:
        with open(f"/proc/{pid}/status") as file:
            text = file.read()
    except OSError:  # it has just ended
        return {}
    return {name: int(kib) << 10 for name, kib in re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", text, re.M)}


def traced(model: str, data: str, store: str, *options: str) -> list[str]:
    """The command line of a trace."""
    return [
        sys.executable,
        "-m",
        "moescope.cli",
        "trace",
        model,
        "--data",
        data,
        "--store",
        store,
        "--overwrite",
        "-q",
        *options,
    ]
