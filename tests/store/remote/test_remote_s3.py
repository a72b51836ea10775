"""A store on a server of S3 (moto) of this machine: traced to, killed, watched, gone on with, queried (`make test-scale`)."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page_commands
import pytest
import s3_gate
from places import ROOT
from pyarrow import fs
from scale import PATIENCE, asked_for

SERVER = ROOT / "build" / "s3" / "bin" / "moto_server"
pytestmark = [
    pytest.mark.slow,
    asked_for(),
    pytest.mark.skipif(not SERVER.exists(), reason="no server of S3 in build/s3: make test-scale puts one there"),
]
MOESCOPE = [sys.executable, "-m", "moescope"]
TRACE = [
    "trace",
    "mixtral",
    "--data",
    "text",
    "--limit",
    "40",
    "--batch-size",
    "2",
    "--commit-rows",
    "2000",
    "--threads",
    "1",
    "-q",
]
LOAD = "select layer, expert, count(*) as n, round(sum(weight), 6) as w from routing group by all order by all"
Environment = dict[str, str]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server:
    """One that can go away and come back, though with nothing in it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.begin()

    def begin(self) -> None:
        self.process = subprocess.Popen([SERVER, "-p", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the server of S3 did not start")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def system(server: Server) -> fs.S3FileSystem:
    found = fs.S3FileSystem(
        access_key="k", secret_key="s", scheme="http", endpoint_override=f"127.0.0.1:{server.port}", allow_bucket_creation=True
    )
    found.create_dir("bucket")
    return found


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Any:
    """The environment of a machine, which has a cache of its own."""

    def named(name: str, **more: str) -> Environment:
        own = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_EC2_METADATA_DISABLED": "true", "MOESCOPE_REMOTE": str(tmp_path / name), "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1", "MOESCOPE_APART_BYTES": "0", "MOESCOPE_CACHE": "off",
        }  # fmt: skip
        return os.environ | own | more

    return named


def asked(environment: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MOESCOPE, *words], env=environment, capture_output=True, text=True, timeout=PATIENCE)


def whole_shards(system: fs.S3FileSystem, run: str) -> int:
    found = system.get_file_info(fs.FileSelector(f"bucket/{run}", recursive=True, allow_not_found=True))
    return sum(one.path.endswith("/progress.json") for one in found)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one process has on a disk."""
    store = str(tmp_path_factory.mktemp("plain") / "run.duckdb")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = asked(environment, *TRACE, "--store", store)
    assert done.returncode == 0, done.stderr
    return asked(environment, "sql", store, LOAD).stdout


@pytest.mark.parametrize("how", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_traced_killed_watched_gone_on_with_elsewhere_and_queried(
    how: list[str], machine: Any, system: fs.S3FileSystem, plain: str
) -> None:
    run = f"killed{len(how)}"
    address = f"s3://bucket/{run}"
    call = [*MOESCOPE, *TRACE, "--store", address, *how]
    process = subprocess.Popen(call, env=machine("a"), stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + PATIENCE
    while whole_shards(system, run) < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    watched = asked(machine("b"), "sql", address, "select status, count(*) from runs join tokens using (run) group by all")
    assert watched.returncode == 0, watched.stderr
    assert "interrupted" in watched.stdout
    done = asked(machine("b"), *TRACE, "--store", address, "--resume")
    assert done.returncode == 0, done.stderr
    assert asked(machine("c"), "sql", address, LOAD).stdout == plain
    checked = asked(machine("c"), "verify", "-q", address)
    assert checked.stdout == f"{address} is sound: 38 of 38 checks hold\n", checked.stdout + checked.stderr
    assert asked(machine("a"), "sql", address, LOAD).stdout == plain
    answer = asked(machine("c"), "analyze", "load", address)
    assert "Load and entropy, run 0" in answer.stdout, answer.stderr


def test_a_server_that_goes_away_meanwhile_costs_nothing(
    machine: Any, server: Server, system: fs.S3FileSystem, plain: str
) -> None:
    address = "s3://bucket/away"
    call = [*MOESCOPE, *TRACE, "--store", address]
    process = subprocess.Popen(call, env=machine("a"), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + PATIENCE
    while whole_shards(system, "away") < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(server.process.pid, signal.SIGSTOP)
    server.process.kill()
    server.process.wait()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert "nothing is lost: what was traced waits in" in said
    server.begin()  # it had all in memory
    system.create_dir("bucket")
    refused = asked(machine("a"), "sql", address, LOAD)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"moescope: there is no store {address}; make one with: moescope trace")


BAD = {
    "s3://nobucket/run": ({}, 1, "there is no bucket nobucket, or none that you may see"),
    "s3://bucket/none": (
        {},
        1,
        "there is no store s3://bucket/none; make one with: moescope trace MODEL --data DATA --store s3://",
    ),
    "s3://bucket/": ({}, 1, "there is no store s3://bucket"),
    "s3://": ({}, 2, "s3:// names no folder; say s3://BUCKET/FOLDER"),
    "s3://bucket/run": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "the server does not answer; look at AWS_ENDPOINT_URL"),
}


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("words", [["sql", "{}", "select 1"], [*TRACE, "--store", "{}"]], ids=["sql", "trace"])
def test_a_wrong_address_is_one_sentence(address: str, words: list[str], machine: Any, system: fs.S3FileSystem) -> None:
    environment, code, sentence = BAD[address]
    if words[0] == "trace" and "no store" in sentence:
        return
    done = asked(machine("bad", **environment), *[word.format(address) for word in words])
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("moescope: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_the_commands_of_the_page_run(machine: Any, system: fs.S3FileSystem, tmp_path: Path) -> None:
    lines = [line for line in page_commands.commands("s3://") if line.split()[1] in ("trace", "info")]
    assert [line.split()[1] for line in lines] == ["trace", "info"]
    assert "s3://bucket/study/run: 1 runs" in page_commands.run(lines, tmp_path, {}, machine("a"))


WHO = {
    "nobody": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    "who may only read": {"AWS_ACCESS_KEY_ID": s3_gate.READER},
}


@pytest.mark.parametrize("who", WHO)
def test_who_may_not_write_is_told_before_a_model_is_loaded(who: str, machine: Any, server: Server, system: Any) -> None:
    with s3_gate.gate(server.port) as port:
        denied = machine("denied", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", **WHO[who])
        done = asked(denied, "trace", "no-such-model", "--data", "text", "--store", "s3://bucket/denied")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("moescope: s3://bucket/denied "), done.stderr
    assert "(access is denied; give credentials by the environment, such as AWS_ACCESS_KEY_ID" in done.stderr
    assert done.stderr.count("\n") == 1
    assert system.get_file_info(fs.FileSelector("bucket/denied", recursive=True, allow_not_found=True)) == []
