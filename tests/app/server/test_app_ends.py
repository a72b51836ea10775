"""`moescope app` as a process: what it says when it cannot start, and that everything ends with it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import synthetic_app

ROOT = Path(__file__).parents[3]
APP = [sys.executable, "-m", "moescope.cli", "app"]
ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ends") / "small.duckdb"
    synthetic_app.text_run(path, "small", documents=1)
    return path


def free() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as one:
        return int(one.getsockname()[1])


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@contextmanager
def started(store: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`moescope app` as a shell starts it, and the address that it prints, once it answers there."""
    number = free()
    command = [*APP, str(store), "--headless", "--port", str(number), *options]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        until = time.monotonic() + 60
        while time.monotonic() < until and not serves(number):
            time.sleep(0.05)
        yield process, re.findall(r"http://\S+", printed)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def serves(number: int) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{number}/_stcore/health", timeout=2).close()
        return True
    return False


def family(pid: int) -> list[psutil.Process]:
    """All that a process started, once the one for queries is there."""
    until = time.monotonic() + 20
    while not (found := psutil.Process(pid).children(recursive=True)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [*((n, 1) for n in ENDS), (signal.SIGINT, 3), (signal.SIGTERM, 3)])
@pytest.mark.sampled(2)
def test_server_ends_with_its_command(number: signal.Signals, times: int, store: Path) -> None:
    with started(store) as (process, address):
        listening = int(address.split(":")[2].split("/")[0])
        assert serves(listening)
        below = family(process.pid)
        for _ in range(times):
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        code = process.wait(10)
        _, alive = psutil.wait_procs(below, 10)
        assert (alive, len(below) > 0) == ([], True)
        assert not serves(listening)
        assert code == {signal.SIGINT: 0, signal.SIGKILL: -9}.get(number, 128 + number)


@pytest.mark.slow
def test_signal_before_it_serves_ends_it(store: Path) -> None:
    for wait in (0.2, 1.0, 2.0):
        number = free()
        process = subprocess.Popen(
            [*APP, str(store), "--headless", "--port", str(number)], env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.communicate(timeout=20)[1]
        assert not serves(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ablation_ends_with_the_server(number: signal.Signals, tmp_path: Path) -> None:
    """A command of the Ablation page, started as the page starts it; here one that does nothing for a long time."""
    (tmp_path / "moescope").mkdir()
    (tmp_path / "moescope" / "__init__.py").touch()
    (tmp_path / "moescope" / "cli.py").write_text("import time\ndef main():\n    print('up', flush=True)\n    time.sleep(600)")
    code = (
        "import os, sys, time; from moescope.app.parts.ablation import ablation_run; from moescope.app.server import shutdown; "
        "from pathlib import Path; shutdown.heed(); "
        "ablation_run.PACKAGE = Path(sys.argv[1]) / 'moescope'; job = ablation_run.Job([['ablate']], None, 'x').start()\n"
        "while not job.said(): time.sleep(0.05)\n"
        "print(job.process.pid, flush=True); time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    job = psutil.Process(int(server.stdout.readline()))
    server.send_signal(number)
    server.wait(10)
    assert psutil.wait_procs([job], 10)[1] == []


def said(*arguments: str, **more: object) -> tuple[int, str]:
    done = subprocess.run([*APP, *arguments], env=environment(), capture_output=True, text=True, timeout=60, **more)  # type: ignore[call-overload]
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "nowhere.invalid"], "there is no host 'nowhere.invalid'"),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
        (["--host", "2001:db8::1"], "2001:db8::1 is no address of this machine"),
        (["--host", ""], "Invalid value for '--host': it is empty"),
        (["--host", "a" * 300], "there is no host 'aaa"),
        (["--host", "http://localhost"], "there is no host 'http://localhost'"),
        (["--port", "0"], "0 is not in the range"),
        (["--port", "65536"], "65536 is not in the range"),
        (["--port", "web"], "'web' is not a whole number"),
        (["--token", ""], "Invalid value for '--token': it is empty"),
        (["--token", "a b"], "a token is at most 200"),
        (["--token", "12"], "not only digits"),
        (["--token", "x" * 201], "a token is at most 200"),
        (["--allow-host", "http://x"], "--allow-host 'http://x' is no name of a host"),
        (["--allow-host", "x:y"], "--allow-host 'x:y' is no name of a host"),
    ],
)
@pytest.mark.sampled(4)
def test_wrong_options_are_a_sentence(options: list[str], words: str, store: Path) -> None:
    code, text = said(str(store), "--headless", "--port", str(free()), *options)
    assert (code, words in text, text.count("\n"), text[:10]) == (2, True, 1, "moescope: "), text


def test_taken_port_is_a_sentence(store: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        number = taken.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            code, text = said(str(store), "--headless", "--port", str(number), "--host", host)
            assert (code, text.count("\n")) == (2, 1), text
            assert text.startswith(f"moescope: another program listens on port {number} of {host}; name another with --port"), (
                text
            )


def test_privileged_port_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from moescope.cli._support import address as _address
    from moescope.errors import InputError

    def bind(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(InputError, match="port 80 needs rights that you do not have; name one from 1024 with --port"):
        _address.address("127.0.0.1", 80)


@pytest.mark.parametrize("kind", ["missing", "text", "folder", "other"])
def test_what_is_no_store_is_a_sentence(kind: str, tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "x.duckdb"
    if kind == "text":
        path.write_text("no store")
    elif kind == "folder":
        path.mkdir()
    elif kind == "other":
        duckdb.connect(str(path)).close()
    code, text = said(str(path), "--headless", "--port", str(free()))
    assert (code, text.startswith("moescope: "), text.count("\n"), "Traceback" in text) == (1, True, 1, False), text


@pytest.mark.slow
def test_printed_address_lets_in(store: Path) -> None:
    with started(store) as (_, address):
        assert urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(address).status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.partition("?")[0])
    with started(store, "--token", "mine") as (_, address):
        assert address.endswith("/?token=mine")
    with started(store, "--no-token") as (_, address):
        assert (address.endswith("/"), urllib.request.urlopen(address).status) == (True, 200)
