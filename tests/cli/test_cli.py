"""The command line as it is found: help, imports, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import click
import handmade
import pytest
from click.testing import CliRunner

from moescope.cli import main
from moescope.discover import modules

COMMANDS = sorted(modules("cli"))
HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "umap", "altair", "streamlit", "pandas", "pyarrow")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run.duckdb"
    handmade.written(path)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    command = modules("cli")[name].command
    assert command.name == name
    assert command.help.strip()
    assert (modules("cli")[name].__doc__ or "").startswith(f"moescope {name}")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert [o for p in options for o in p.opts if o not in shown.output] == []


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []


def imported(*arguments: str) -> set[str]:
    """Heavy modules that a command loads, in a process of its own."""
    script = (
        "import sys\nfrom moescope.cli import main\ntry: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "print('loaded:', *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded: ")[2].split()) & set(HEAVY)


def test_help_loads_nothing_heavy() -> None:
    assert imported("--help") == set()
    assert imported("--version") == set()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.slow
def test_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    assert imported(name, "--help") - {"pandas", "pyarrow"} == set()


@pytest.mark.parametrize(
    "arguments", [["sql", "STORE", "from runs"], ["info", "STORE"], ["verify", "STORE"]], ids=lambda a: a[0]
)
def test_reading_a_store_loads_no_torch(store: Path, arguments: list[str]) -> None:
    assert imported(*[str(store) if a == "STORE" else a for a in arguments]) & {"torch", "transformers"} == set()


SQL = "select run, layer, expert, share, stack from expert_load where layer = 4 order by expert"
SAID = {
    "table": "run  layer  expert  share  stack\n---  -----  ------  -----  -------\n0    4      0       0.25   decoder\n"
    "0    4      1       0.25   decoder\n0    4      2       0.5    decoder\n",
    "csv": "run,layer,expert,share,stack\n0,4,0,0.25,decoder\n0,4,1,0.25,decoder\n0,4,2,0.5,decoder\n",
}


@pytest.mark.parametrize("form", SAID)
def test_sql(store: Path, form: str) -> None:
    assert CliRunner().invoke(main, ["sql", str(store), SQL, "--format", form]).output == SAID[form]


def test_sql_as_json_and_parquet(store: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["sql", str(store), SQL, "--format", "json"]).output
    rows = [{"run": 0, "layer": 4, "expert": e, "share": s, "stack": "decoder"} for e, s in ((0, 0.25), (1, 0.25), (2, 0.5))]
    assert json.loads(said) == rows
    import pyarrow.parquet as pq

    file = tmp_path / "x.parquet"
    assert CliRunner().invoke(main, ["sql", str(store), SQL, "--format", "parquet", "-o", str(file)]).exit_code == 0
    assert pq.read_table(file).to_pylist() == rows


def test_info(store: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["info", str(store)]).output.splitlines()
    assert said[:3] == [
        f"{store}: 1 run, {store.stat().st_size / 1e6:.1f} MB",
        "  run 0  toy on letters: 8 decisions, 4 tokens",
        "views:",
    ]
    writer = handmade.written(tmp_path / "cut.duckdb", batches=1, close=False)
    running = CliRunner().invoke(main, ["info", str(tmp_path / "cut.duckdb")]).output
    assert "  run 0  toy on letters: 4 decisions, 2 tokens — running, 1 of 1 sequences; still being traced\n" in running
    writer.release()
    cut = CliRunner().invoke(main, ["info", str(tmp_path / "cut.duckdb")]).output
    assert "— interrupted, 1 of 1 sequences; go on with --resume, or keep it: moescope recover\n" in cut
    found = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "cut.duckdb"), "--json"]).output)
    assert [(r["status"], r["decisions"], r["progress"]["batches"]) for r in found["runs"]] == [("interrupted", 4, 1)]
    assert set(found["views"]) >= {"expert_load", "load_balance", "routing", "decisions", "assignments"}


def test_info_and_report_say_what_is_routed(tmp_path: Path) -> None:
    """Kinds of routers, trees and conditions, where they are not tokens that choose experts alone."""
    import numpy as np
    import told

    both = np.tile([0, 1], (2, 6, 1))
    routers = [{"router": 0, "experts": 2, "kind": "tree", "name": "root"},
               {"router": 1, "experts": 2, "kind": "tree", "parent_router": "root", "parent_expert": 1},
               {"router": 2, "experts": 1, "kind": "depth"}]  # fmt: skip
    some = np.where(np.arange(12).reshape(2, 6, 1) % 2 == 0, 0, -1)
    conditions = [*told.timesteps(7, 5), *told.classes("task", ["sum"] * 6, 2)]
    path = told.written(tmp_path / "t.duckdb", routers, {0: both, 1: both, 2: some}, conditions)
    words = ("2 routers of trees; 1 router of depth (blocks that run or not); 1 router below another as its expert "
             "(leaves: view leaf_weight); forwards were told task (1 value), timestep (2 values)")  # fmt: skip
    lines = CliRunner().invoke(main, ["info", str(path)]).output.splitlines()
    assert lines[2] == f"    {words}"
    run = json.loads(CliRunner().invoke(main, ["info", str(path), "--json"]).output)["runs"][0]
    assert [run[key] for key in ("kinds", "branches", "conditions")] == [{"tree": 2, "depth": 1}, 1, {"task": 1, "timestep": 2}]
    report = CliRunner().invoke(main, ["report", str(path), "-o", str(tmp_path / "t.html")])
    assert report.exit_code == 0, report.output
    assert f"Routing: {words}." in (tmp_path / "t.html").read_text()
