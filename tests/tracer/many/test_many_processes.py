"""Workers that are processes: by the command line, killed, and under torchrun; run by `make test-scale`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import page_commands
import pytest
from places import ROOT
from records import record
from scale import PATIENCE, asked_for

import moescope
from moescope.cli import main
from moescope.tracer import Options
from moescope.tracer.many.gather import trace_many
from moescope.tracer.many.processes import Processes
from moescope.tracer.many.worker import Task

pytestmark = [pytest.mark.slow, asked_for()]
DATA = ["--data", "text", "--batch-size", "2", "--limit", "60", "--commit-rows", "2000", "--threads", "1"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if name not in ("RANK", "WORLD_SIZE")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process has."""
    store = tmp_path_factory.mktemp("one") / "one.duckdb"
    subprocess.run(
        [*MOESCOPE, "trace", "mixtral", *DATA, "--store", str(store), "-q"], env=ENVIRONMENT, check=True, timeout=PATIENCE
    )
    return store


MOESCOPE = [sys.executable, "-m", "moescope"]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as free:
        return int(free.getsockname()[1])


def stretches(store: Path) -> int:
    """That are made, or one fewer: first those that have their place, for one that gets it meanwhile counts once."""
    return sum(len([*store.parent.glob(f"{store.name}.parts/*/{name}-*[0-9]")]) for name in ("shard", "stretch"))


@contextmanager
def begun(call: list[str], store: Path, least: int) -> Iterator[subprocess.Popen[str]]:
    """The command, once so many stretches are made."""
    process = subprocess.Popen(call, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + PATIENCE
        while stretches(store) < least and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield process
    finally:
        left = children(process.pid)
        process.kill()
        process.wait()
        for pid in left:  # ranks outlive a torchrun that is killed
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Processes of moescope that a process started, by their numbers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if (int(words[1]) == pid and "spawn_main" in line) or (int(words[1]) == pid and "moescope" in line):
            found.append(int(path.parent.name))
    return sorted(found)


def test_two_workers_of_which_one_is_killed_leave_what_one_process_leaves(one: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.duckdb"
    call = [*MOESCOPE, "trace", "mixtral", *DATA, "--store", str(store), "--workers", "2", "-q"]
    with begun(call, store, 2) as process:
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, process.stderr.read() if process.stderr else ""
    assert record(store) == record(one)
    assert not (tmp_path / "many.duckdb.parts").exists()


def test_a_driver_that_is_killed_costs_its_open_shards(one: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.duckdb"
    call = [*MOESCOPE, "trace", "mixtral", *DATA, "--store", str(store), "--workers", "2", "-q"]
    with begun(call, store, 4) as process:
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)  # they go with their driver
    kept = stretches(store)
    assert kept >= 4
    before = {path: path.stat().st_ino for path in store.parent.glob(f"{store.name}.parts/*/shard-*[0-9]/tokens.parquet")}
    with moescope.open(store) as opened:
        assert opened.rows("select status from runs") == [("interrupted",)]
    with begun([*call, "--resume"], store, kept) as process:
        assert all(path.stat().st_ino == node for path, node in before.items() if path.exists())
        assert process.wait(PATIENCE) == 0
    assert record(store) == record(one)


def test_ranks_of_torchrun_of_which_one_is_killed_leave_what_one_process_leaves(one: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.duckdb"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2", "--rdzv-backend", "c10d"]
    call = [sys.executable, *torchrun, "--rdzv-endpoint", "localhost:0", "-m", "moescope", "trace", "mixtral", *DATA]
    with begun([*call, "--store", str(store), "-q"], store, 2) as process:
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, process.stderr.read() if process.stderr else ""
    assert record(store) == record(one)
    with moescope.open(store) as opened:
        assert opened.rows("select status from runs") == [("complete",)]


def test_ranks_that_say_so_themselves_are_workers(one: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.duckdb"
    said = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    call = [*MOESCOPE, "trace", "mixtral", *DATA, "--store", str(store), "-q"]
    ranks = [subprocess.Popen(call, env={**ENVIRONMENT, **said, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(PATIENCE) for rank in ranks] == [0, 0]
    assert record(store) == record(one)


@pytest.mark.parametrize("words", [["--workers 4"], ["torchrun"], ["MASTER_PORT", "srun"]], ids=lambda words: words[-1])
def test_the_commands_of_the_page_run(words: list[str], tmp_path: Path) -> None:
    lines = page_commands.commands(*words)
    assert len(lines) == len(words)
    page_commands.run(lines, tmp_path, {"29500": str(free_port())}, ENVIRONMENT)
    with moescope.open(tmp_path / "run.duckdb") as opened:
        assert opened.rows("select status, sequences from runs") == [("complete", 8)]


def test_a_worker_that_always_dies_is_said(tmp_path: Path) -> None:
    task = Task("mixtral", "text", tmp_path / "s.duckdb", plan={"limit": 4}, options=Options())
    with Processes(task, 1) as pool:
        pool._start = lambda seat: (type(pool)._start(pool, seat), seat.process.kill())  # type: ignore[method-assign]
        os.kill(pool.pids[0], signal.SIGKILL)
        with pytest.raises(moescope.errors.ModelError, match="a worker died 3 times before its routers were proved"):
            trace_many(task, pool)
    assert list(tmp_path.iterdir()) == []


def test_workers_and_launchers_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from click.testing import CliRunner

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(main, ["trace", "mixtral", *DATA, "--store", str(tmp_path / "s.duckdb"), "--workers", "2"])
    assert done.exit_code == 2
    assert "--workers starts processes, and a launcher started some already" in done.output
