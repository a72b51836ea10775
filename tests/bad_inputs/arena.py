"""Runs hostile cases, each in a child of its own that is forked from a process which has imported everything once.

As a program (`python arena.py FOLDER`) it makes the valid files in FOLDER and answers cases on its standard input, a JSON line
each; `Arena` is the other end. A child has limits of the operating system on memory and processor time, and its whole folder is
compared before and after.
"""

import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hostile import Case

SECONDS = float(os.environ.get("MOESCOPE_FUZZ_SECONDS", "60"))  # wall clock; of the processor half as much
MEMORY = 6 << 30  # address space beyond what was there


@dataclass(frozen=True)
class Outcome:
    """What a case came to: exit code (None: killed), what was said, seconds, bytes at most, files that changed, damage done."""

    code: int | None
    out: str
    err: str
    seconds: float
    bytes: int
    changed: list[str]
    damage: list[str]


class Arena:
    """A running arena."""

    def __init__(self, folder: Path) -> None:
        settings = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(folder / "hub"),
            "MOESCOPE_REMOTE": str(folder / "remote"),
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # s3:// leaves this machine no more than the hub does
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the arena did not start")

    def run(self, case: Case) -> Outcome:
        """One case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def state(folder: Path) -> dict[str, str]:
    """A digest of every regular file below folder; of anything else what it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        small = stat.S_ISREG(mode) and path.lstat().st_size < 1 << 28
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else f"{mode:o}"
        found[os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")] = digest
    return found


def serve(folder: Path) -> None:
    """Answer cases until there are no more."""
    import samples

    from moescope.cli import main

    _load()
    valid = folder / "valid"
    valid.mkdir(parents=True)
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            samples.make(valid, lambda args: main(args, standalone_mode=False))
            os._exit(0)
    if os.waitpid(child, 0)[1] or not (valid / "run.duckdb").exists():
        raise RuntimeError("the valid files could not be made")
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        print(json.dumps(asdict(_case(Case(**json.loads(line)), valid, folder / f"case{number}"))), flush=True)


def _load() -> None:
    import importlib

    import torch
    import transformers

    from moescope.discover import modules

    torch.set_num_threads(1)
    transformers.MixtralForCausalLM, transformers.PreTrainedTokenizerFast  # noqa: B018
    for package in ("cli", "inputs", "analyses", "contracts"):
        modules(package)
    for name in (
        "tracer",
        "proof.families",
        "interventions",
        "store",
        "models.loading",
        "models.vmoe",
        "analyses._shared.report_page",
        "store.integrity.verify",
    ):
        importlib.import_module(f"moescope.{name}")
    for name in ("datasets", "pandas", "pyarrow.csv", "pyarrow.parquet", "duckdb", "altair"):
        importlib.import_module(name)


def _case(case: Case, valid: Path, folder: Path) -> Outcome:
    from certain import damage

    shutil.copytree(valid, folder, symlinks=True)
    os.chdir(folder)
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    done = [damage(*edit) for edit in case.edits]
    before = state(folder)
    said = folder.with_suffix(".out"), folder.with_suffix(".err")
    began = time.monotonic()
    child = os.fork()
    if not child:
        _child(case, *said)
    code, used = _waited(child, began + SECONDS)
    took = time.monotonic() - began
    out, err = (path.read_bytes()[: 1 << 20].decode("utf-8", "backslashreplace") for path in said)
    after = state(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    os.chdir("/")
    for path in (folder, *said):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    return Outcome(code, out, err, took, used, changed, done)


def _child(case: Case, out: Path, err: Path) -> Any:
    """Never comes back: the command line in this process, as the console script runs it."""
    args = case.args
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if args[:1] not in (["report"], ["export"]):  # V8, which draws its charts, reserves far more than it uses
        resource.setrlimit(resource.RLIMIT_AS, (pages + MEMORY, pages + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS / 2), int(SECONDS / 2) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if case.real and args[:1] not in (["app"], ["listen"], ["serve"]):
        os.execv(sys.executable, [sys.executable, "-m", "moescope.cli", *args])
    sys.argv = ["moescope", *args]
    code: Any = 99
    try:
        from moescope.cli import main

        if args[:1] in (["app"], ["listen"], ["serve"]):
            _no_server()
        if args[:1] == ["export"]:
            _no_page()
        main(prog_name="moescope")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = 120
    os._exit(code)


def _no_page() -> None:
    """A page that would be drawn, by the dashboard in a process of its own, has been reached."""
    from moescope.cli._support import exported

    exported.page = lambda store, wanted: b"<!doctype html></html>"


def _no_server() -> None:
    """A dashboard or a door that would start has been reached: that is all a case wants."""
    import uvicorn

    def never(*_: Any, **__: Any) -> Any:
        raise SystemExit(0)

    os.execve = never
    setattr(uvicorn.Server, "run", never)  # noqa: B010


def _waited(child: int, until: float) -> tuple[int | None, int]:
    while time.monotonic() < until:
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024
        time.sleep(0.002)
    os.kill(child, 9)
    _, _, used = os.wait4(child, 0)
    return None, used.ru_maxrss * 1024


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # libraries would wait for threads that never ran here
