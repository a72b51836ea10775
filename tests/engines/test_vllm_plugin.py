"""The entry point in vLLM's processes, with an imitation of the class that it wraps; and `moescope serve`."""

import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_vllm
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.cli._support import engine_server
from moescope.engines.vllm import attach, plugin


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> type:
    """vLLM's WorkerWrapperBase, as far as it is wrapped."""

    class WorkerWrapperBase:
        def __init__(self, worker: Any) -> None:
            self.worker = worker

        def init_device(self) -> str:
            return "ready"

    for name in ("vllm", "vllm.v1", "vllm.v1.worker", "vllm.v1.worker.worker_base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vllm.v1.worker.worker_base"].WorkerWrapperBase = WorkerWrapperBase  # type: ignore[attr-defined]
    monkeypatch.setattr(attach, "_first_rank", lambda: True)
    monkeypatch.setenv("VLLM_DISABLE_COMPILE_CACHE", "0")
    return WorkerWrapperBase


def test_without_the_variable_nothing_is_touched(wrapper: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.STORE, raising=False)
    before = wrapper.init_device  # type: ignore[attr-defined]
    plugin.register()
    assert wrapper.init_device is before  # type: ignore[attr-defined]


def test_a_worker_is_recorded_from_the_loading_of_its_model_on(
    wrapper: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where vLLM registers plugins several times."""
    monkeypatch.setenv(plugin.STORE, str(tmp_path / "a.duckdb"))
    monkeypatch.setenv(plugin.NAME, "served")
    for _ in range(3):
        plugin.register()
    made = fake_vllm.worker()
    assert wrapper(made).init_device() == "ready"
    made.model_runner.load_model()
    asked = fake_vllm.requests(3, 0)
    fake_vllm.Engine(made, asked, 0).run()
    made.shutdown()
    with moescope.open(tmp_path / "a.duckdb") as store:
        found = store.sql("select name, sequences, decisions from runs").fetchall()
    assert found == [("served", 3, sum(len(one.seen) for one in asked) * len(fake_vllm.LAYERS))]


@pytest.mark.parametrize("fault", ["no runner", "another rank", "a package is missing"])
def test_what_cannot_be_bound_starts_as_ever(
    fault: str, wrapper: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(plugin.STORE, str(tmp_path / "a.duckdb"))
    plugin.register()
    made = fake_vllm.worker()
    if fault == "no runner":
        made.model_runner = None
    if fault == "another rank":
        monkeypatch.setattr(attach, "_first_rank", lambda: False)
    if fault == "a package is missing":
        monkeypatch.setitem(sys.modules, "moescope.engines.vllm.attach", None)
    with caplog.at_level(logging.ERROR, "vllm.moescope"):
        assert wrapper(made).init_device() == "ready"
        if made.model_runner is not None:
            made.model_runner.load_model()
    assert ("does not record this server" in caplog.text) == (fault != "another rank")
    assert list(tmp_path.iterdir()) == []


def test_the_entry_point_is_declared() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    said = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    assert said == {"moescope": f"{plugin.__name__}:{plugin.register.__name__}"}
    assert all(point.load for point in entry_points(group="vllm.general_plugins"))


PRINTS = "import os, sys; print(os.environ['MOESCOPE_VLLM_STORE'], os.environ.get('MOESCOPE_VLLM_NAME'), *sys.argv[1:])"


def test_serve_hands_everything_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Options behind `--` are the engine's; its exit code is ours; no run, and that is said."""
    monkeypatch.setattr(engine_server, "installed", lambda engine: None)
    monkeypatch.setattr(engine_server, "server", lambda: ["-c", PRINTS + "; sys.exit(7)"])
    arguments = ["serve", "vllm", "a/model", "--store", str(tmp_path / "a.duckdb"), "--name", "n", "--", "--port", "9"]
    done = CliRunner().invoke(main, arguments, standalone_mode=False)
    assert done.exception is not None
    assert getattr(done.exception, "code", None) == 7
    assert capfd.readouterr().out.strip() == f"{tmp_path / 'a.duckdb'} n a/model --port 9 --shutdown-timeout 60"
    assert "no run was completed" in done.output


def test_the_server_of_builds_without_a_package_vllm_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata as metadata

    monkeypatch.setattr(metadata, "version", lambda name: "0.32")
    assert engine_server.server() == ["-m", "vllm.entrypoints.cli.main", "serve"]
    monkeypatch.undo()
    assert engine_server.server()[1:] == ["vllm.entrypoints.openai.api_server", "--model"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["serve", "vllm", "m", "--store", "no/a.duckdb"], "there is no folder"),
        (["serve", "vllm", "m"], "--store"),
    ],
)
def test_serve_refuses_in_a_sentence(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine_server, "installed", lambda engine: None)
    with pytest.raises(SystemExit) as end:
        main(arguments, prog_name="moescope")
    assert end.value.code in (1, 2)
    assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
