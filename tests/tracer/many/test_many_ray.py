"""Workers on a cluster of Ray of two nodes, of which processes and nodes are killed; run by `make test-scale`."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import handmade
import page_commands
import pytest
from click.testing import CliRunner
from places import ROOT
from records import record
from scale import PATIENCE, asked_for

import moescope
from moescope.cli import main
from moescope.errors import InputError
from moescope.tracer import Options
from moescope.tracer.many.gather import trace_many
from moescope.tracer.many.on_ray import OnRay
from moescope.tracer.many.worker import Task

SCALE = asked_for("ray", "ray")
PLAN = {"batch_size": 2, "limit": 48}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU, and a head that runs nothing."""
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths}
    sizes = {"object_store_memory": 80 << 20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **sizes})
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("one") / "one.duckdb"
    moescope.trace("mixtral", "text", store, options=options(), **PLAN)  # type: ignore[arg-type]
    return store


def options() -> Options:
    return Options(commit_rows=2000)


class Killing(OnRay):
    """Kills once, when so many stretches are made."""

    kill: Any = None
    made = 0
    pids: tuple[int, ...] = ()

    def begin(self, run: Any) -> None:
        import ray

        self.pids = tuple(ray.get([actor.pid.remote() for actor in self.actors]))  # once all have said hello
        super().begin(run)

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        found = super().wait(seconds)
        self.made += len(found)
        if self.kill is not None and self.made >= 3:
            kill, self.kill = self.kill, None
            kill(self)
        return found


def worker(pool: Killing) -> None:
    """SIGKILL to the process of an actor that is at a stretch."""
    at_it = next(iter(pool._doing.values()))[0]
    os.kill(pool.pids[pool.actors.index(at_it)], signal.SIGKILL)


@pytest.mark.slow
@SCALE
@pytest.mark.parametrize("killed", ["nothing", "worker", "node"])
def test_the_record_is_that_of_one_process(killed: str, cluster: Any, one: Path, tmp_path: Path) -> None:
    def node(pool: Killing) -> None:
        """SIGKILL to all processes of a node."""
        lost = next(iter(cluster.worker_nodes))
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    task = Task("mixtral", "text", tmp_path / "many.duckdb", plan=PLAN, options=options(), threads=1)
    with Killing(task, 2, cluster.address) as pool:
        pool.kill = {"worker": worker, "node": node}.get(killed)
        trace_many(task, pool)
    assert pool.kill is None
    assert record(task.store) == record(one)
    assert [path.name for path in tmp_path.iterdir()] == ["many.duckdb"]


@pytest.mark.slow
@SCALE
def test_the_command_joins_the_cluster(cluster: Any, one: Path, tmp_path: Path) -> None:
    store = tmp_path / "many.duckdb"
    asked = ["trace", "mixtral", "--data", "text", "--batch-size", "2", "--limit", "48", "--commit-rows", "2000", "-q"]
    where = ["--workers", "2", "--engine", "ray", "--address", cluster.address]
    done = CliRunner().invoke(main, [*asked, "--store", str(store), *where])
    assert done.exit_code == 0, done.output
    assert record(store) == record(one)


@pytest.mark.slow
@SCALE
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    lines = [
        shlex.split(line, comments=True)
        for line in (ROOT / "README.md").read_text("utf-8").splitlines()
        if "--engine ray" in line
    ]
    assert [line[1] for line in lines] == ["trace", "analyze"]
    for line in lines:
        call = [sys.executable, "-m", *line]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "load" in done.stdout


@pytest.mark.slow
@SCALE
def test_the_commands_of_the_page_run(cluster: Any, tmp_path: Path) -> None:
    lines = [line for line in page_commands.commands("FIRST:6379") if line.startswith("moescope")]
    assert [line.split()[1] for line in lines] == ["trace", "analyze"]
    assert "load" in page_commands.run(lines, tmp_path, {"FIRST:6379": cluster.address})


ADDRESSES = {
    "nonsense": "'nonsense' is no address of a cluster of Ray; say auto, HOST:PORT or ray://HOST:PORT",
    "127.0.0.1:9": "there is no cluster of Ray at 127.0.0.1:9: connection refused",
    "ray://127.0.0.1:9": "there is no cluster of Ray at ray://127.0.0.1:9: connection refused",
}


@asked_for("ray", "ray")
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("words", [["trace", "mixtral", "--data", "text", "--workers", "2", "--store"], ["analyze", "load"]])
def test_where_no_cluster_answers_is_said_at_once(words: list[str], address: str, tmp_path: Path) -> None:
    store = tmp_path / "s.duckdb"
    if words[0] == "analyze":
        handmade.written(store)
    done = CliRunner().invoke(main, [*words, str(store), "--engine", "ray", "--address", address])
    assert (done.exit_code, done.output) == (2, f"moescope: {ADDRESSES[address]}\n")
    assert store.exists() == (words[0] == "analyze")


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    task = Task("mixtral", "text", tmp_path / "s.duckdb")
    with pytest.raises(InputError, match=r"engine ray needs the package ray: pip install 'moescope\[ray\]'"), OnRay(task, 2):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["--engine", "ray"], "--engine says where workers are; say how many with --workers"),
        (["--workers", "2", "--address", "auto"], "--address and --gpus-per-worker are of --engine ray"),
    ],
)
def test_what_does_not_fit_together(asked: list[str], why: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["trace", "mixtral", "--data", "text", "--store", str(tmp_path / "s.duckdb"), *asked])
    assert (done.exit_code, done.output) == (2, f"moescope: {why}; see main trace --help\n")
