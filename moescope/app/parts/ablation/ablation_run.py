"""A small ablation of a shipped model, run by `moescope ablate` in processes of its own: what may be run, and how it goes."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

import moescope
from moescope.app.queries import store_access
from moescope.app.server import shutdown, tied_process
from moescope.inputs import shipped

PACKAGE = Path(moescope.__file__).parent
MODES = ("route-around", "zero", "mean")
TOKENS = 12_000  # of a run whose own inputs are few enough
FEW = (4, 8, 16)
MOST = 8  # experts at once
LOCAL = ("127.0.0.1", "localhost", "::1")
NAMED = "{} examples, for ablation"
KNOWN = """
select max(run) as run from runs join models m using (model)
where runs.name = ? and m.name = ? and dataset = ? and status = 'complete'"""
LAST = "select max(run) as run from runs join models m using (model) where m.name = ? and status = 'complete'"
TIED = tied_process.__file__
Row = dict[str, Any]


def specimens() -> set[str]:
    """Names of the models that moescope ships."""
    return {folder.name for folder in (PACKAGE / "models" / "specimens").iterdir() if (folder / "config.json").is_file()}


def refusal(run: Row, address: str | None) -> str:
    """Why nothing is run from the page, or nothing."""
    store = store_access.path()
    if address not in LOCAL:
        return "This dashboard is open to other machines, so it starts nothing here; run the command in a terminal."
    if run["model_name"] not in specimens():
        return f"Only shipped models are run from the page ({', '.join(sorted(specimens()))}); run the command in a terminal."
    if run["dataset"] not in shipped():
        return f"Only shipped data is run from the page ({', '.join(shipped())}); run the command in a terminal."
    if run["status"] != "complete" or (run["overrides"] or "{}") not in ("{}", "null"):
        return "Only a complete run in which nothing was changed can be the baseline; choose another run."
    if not os.access(store.parent, os.W_OK):
        return f"The folder of {store.name} cannot be written by this user; run the command on a copy of the store."
    return ""


def steps(run: Row, layer: Any, experts: list[int], mode: str, alone: bool, by: list[str], few: int) -> list[list[str]]:
    """Arguments of the commands, one after the other. `few` examples are traced first where the store has no such run.

    With `few` 0 the inputs of `run` itself are taken. Everything that is not a number is from a fixed list or a file's name.
    """
    model, data, store = run["model_name"], run["dataset"], str(store_access.path())
    number = run["run"] if not few else store_access.rows(KNOWN, NAMED.format(few), model, data)[0]["run"]
    place = f"{layer.stack}.{layer.layer}" if layer.stack else str(layer.layer)
    ablate = ["ablate", model, "--data", data, "--store", store, "--mode", mode]
    ablate += ["--experts", f"{place}:{','.join(map(str, sorted(experts)))}", "--controls", "2"]
    ablate += ["--sweep"] * alone + (["--by", ",".join(by)] if by else [])
    if number is not None:
        return [[*ablate, "--run", str(number)]]
    trace = ["trace", model, "--data", data, "--limit", str(few), "--store", store, "--name", NAMED.format(few)]
    return [trace, ablate]


@dataclass
class Job:
    """One ablation that was asked for."""

    commands: list[list[str]]
    baseline: int | None  # the run that the effects belong to, once known
    model: str
    log: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="moescope-ablation-")) / "log")
    begun: float = field(default_factory=time.monotonic)
    at: int = 0
    status: str = "running"  # running | done | failed | stopped
    seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Job":
        """Begin, without waiting."""
        threading.Thread(target=self._work, daemon=True).start()
        return self

    def _work(self) -> None:
        for at, command in enumerate(self.commands):
            self.at = at
            if self.status != "running" or not self._one(command):
                break
        self.seconds = time.monotonic() - self.begun
        self.status = "done" if self.status == "running" else self.status

    def _one(self, command: list[str]) -> bool:
        paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        own = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment = os.environ | own | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", TIED, str(os.getpid()), *command], cwd=self.log.parent, env=environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        if self.process.wait() and self.status == "running":
            self.status = "failed"
        return self.status == "running"

    def stop(self) -> None:
        """End it; what was computed is kept for the next time."""
        self.status = "stopped"
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def said(self) -> str:
        """What the command has written, without colours and cursor moves."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")

    def progress(self) -> tuple[float, str]:
        """Share done of the step that runs, and what it does."""
        doing = "tracing a few examples" if self.commands[self.at][0] == "trace" else "ablating"
        found = re.findall(r"(\d+)/(\d+)", self.said())
        done, total = map(int, found[-1]) if found else (0, 0)
        step = f"step {self.at + 1} of {len(self.commands)}: " if len(self.commands) > 1 else ""
        what = f"{doing}, batch {done} of {total}" if total else f"{doing}: loading the model"
        return min(done / total, 1.0) if total else 0.0, f"{step}{what} · {time.monotonic() - self.begun:.0f} s"

    def result(self) -> int | None:
        """The run that has the effects."""
        return self.baseline if self.baseline is not None else store_access.rows(LAST, self.model)[0]["run"]


@st.cache_resource(show_spinner=False)
def jobs() -> dict[str, Job]:
    """The last job of every store: one at a time, whoever looks."""
    known: dict[str, Job] = {}

    def stop() -> None:
        for job in [*known.values()]:
            job.stop()

    shutdown.last(stop)
    return known
