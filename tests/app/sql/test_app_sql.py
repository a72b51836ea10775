"""Visitors' SQL: what it may do, what it may take, and that it ends with whoever asked."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import synthetic_app

from moescope.app.sql import processes

MEMORY = 300 << 20
LONG = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3"


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a finished run, and one that is being traced."""
    store = tmp_path_factory.mktemp("sql") / "growing.duckdb"
    synthetic_app.text_run(store, "first", documents=1)
    writer = synthetic_app.text_run(store, "second", documents=2, finish=False)
    yield store
    writer.discard()


def asked(store: Path, query: str, kind: str = "table", tick: Callable[[float], None] = lambda _: None, **limits: int) -> Any:
    """The answer of one process: a frame, or a file's bytes."""
    question = {
        "store": str(store),
        "query": query,
        "kind": kind,
        "rows": 1000,
        "bytes": 8 << 20,
        "memory": MEMORY,
        "seconds": 20,
    }
    body, more = processes.desk.ask(question | limits, tick)
    if kind != "table":
        return body
    import pyarrow as pa

    return pa.ipc.open_stream(body).read_pandas(), more


def refused(store: Path, query: str, **more: Any) -> tuple[str, str]:
    with pytest.raises(processes.Failed) as failed:
        asked(store, query, **more)
    return failed.value.kind, failed.value.words


def running() -> list[psutil.Process]:
    """Processes of this one that were asked something."""
    return [psutil.Process(worker.process.pid) for worker in processes.desk.busy if worker.process.poll() is None]


def left() -> list[psutil.Process]:
    """Processes beside the one that waits for the next question."""
    processes.desk.starter.submit(lambda: None).result()  # it is there
    spare = processes.desk.spare.process.pid if processes.desk.spare else 0
    return [p for p in psutil.Process().children() if p.pid != spare and "worker.py" in " ".join(p.cmdline())]


WRITING = [
    "with x as (delete from {t} returning *) select * from x",
    "with x as (delete from {t} returning *) select 1",
    "with x as materialized (insert into {t} select * from {t} returning *) from x",
    "with a as (select 1), x as (delete from {t} returning *) select * from a, x",
    "select * from (with x as (delete from {t} returning *) select * from x)",
    "with x as (truncate {t}) select 1",
]
TABLES = ["runs", "models", "routers", "vocab", "meta"]


@pytest.mark.parametrize(("table", "query"), [*zip(TABLES, WRITING), *(("runs", query) for query in WRITING[1:])])
@pytest.mark.sampled(2)
def test_nothing_is_written(table: str, query: str, growing: Path, counts: list[int]) -> None:
    kind, words = refused(growing, query.format(t=table))
    assert (kind, bool(words)) == ("said", True)
    assert counted(growing) == counts


@pytest.fixture(scope="module")
def counts(growing: Path) -> list[int]:
    """Rows of TABLES before anybody wrote."""
    return counted(growing)


def counted(store: Path) -> list[int]:
    found, _ = asked(store, "select " + ", ".join(f"(select count(*) from {table}) as {table}" for table in TABLES))
    return [int(found[table].iloc[0]) for table in TABLES]


STATEMENTS = """create table x as select 1; create temp table x (a int); drop table runs; insert into runs default values;
delete from runs; update runs set name = 'x'; copy runs to '/tmp/x.csv'; attach '/tmp/x.duckdb'; detach base; set threads = 1;
reset threads; pragma version; call pragma_version(); load json; install json; export database '/tmp/x'; checkpoint; vacuum;
begin; commit; rollback; use memory; prepare p as select 1; execute p; explain analyze select 1; create view v as select 1;
alter table runs add column x int; create macro m() as 1; create sequence s; analyze"""


@pytest.mark.parametrize("query", [text.strip() for text in STATEMENTS.split(";")])
@pytest.mark.sampled(4)
def test_only_reading_statements(query: str, growing: Path) -> None:
    kind, words = refused(growing, query)
    assert (kind, "this page only reads" in words or "not SQL" in words) == ("said", True), words


@pytest.mark.parametrize("query", ["drop table runs", "select 2", "begin"])
def test_one_statement_at_a_time(query: str, growing: Path) -> None:
    assert "one query at a time" in refused(growing, f"select 1; {query}")[1]


GREEDY = [
    "select sum(length(repeat(range::varchar || 'x', 5000000))) from range(100000)",
    "select damerau_levenshtein(repeat('a', 100000), repeat('b', 100000))",
    "select list_reduce(range(100000000), lambda x, y: x + y)",
    "select array_agg(range) from range(10000000000)",
    "select range(1000000000)",
    "select string_agg(repeat('x', 1000), ',') from range(100000000)",
    "select list_sort(range(200000000))",
    "select json_object('a', repeat('x', 900000000))",
    "select regexp_replace(repeat('a', 100000000), 'a', 'bbbbbbbb', 'g')",
    "select * from range(10000000) a join range(10000000) b on a.range = b.range order by hash(a.range)",
]


@pytest.mark.slow
@pytest.mark.parametrize("query", GREEDY)
@pytest.mark.sampled(4)
def test_memory_is_bounded(query: str, growing: Path) -> None:
    most = [0]

    def tick(_: float) -> None:
        most[0] = max([most[0], *(p.memory_info().rss for p in running())])

    began = time.monotonic()
    assert refused(growing, query, tick=tick, seconds=60)[0] == "memory"
    assert time.monotonic() - began < 60
    assert most[0] < 2 * MEMORY
    assert left() == []


def test_time_is_bounded(growing: Path) -> None:
    assert refused(growing, LONG, seconds=1) == ("time", "")
    assert left() == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select repeat('x', 9000000)", "the result is larger than 8 MB"),
        ("select repeat('x', 9000) from range(1000)", "the result is larger than 8 MB"),
        ("select " + ", ".join(f"{n} as c{n}" for n in range(1001)), "the result has 1001 columns"),
    ],
)
def test_results_are_bounded(query: str, words: str, growing: Path) -> None:
    assert words in refused(growing, query)[1]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 5000, 10**12])
@pytest.mark.sampled(3)
def test_rows_are_bounded(count: int, growing: Path) -> None:
    frame, more = asked(growing, f"select range as n from range({count})")
    assert (frame["n"].tolist(), more) == (list(range(min(count, 1000))), count > 1000)


SOURCES = [
    *("read_text('/etc/passwd')", "read_csv('{folder}/x.csv')", "glob('/*')", "read_parquet('http://127.0.0.1:1/x')"),
    *("'{folder}/x.csv'", "read_text('/proc/self/environ')", "read_blob('{folder}/*')"),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.sampled(3)
def test_nothing_but_the_store_is_reached(source: str, growing: Path) -> None:
    (growing.parent / "x.csv").write_text("a\n1\n")
    kind, words = refused(growing, f"from {source.format(folder=growing.parent)}")
    assert (kind, "disabled by configuration" in words) == ("said", True), words


def test_finished_and_unfinished_runs_are_asked(growing: Path) -> None:
    frame, _ = asked(
        growing,
        "select r.name, r.status, count(*) > 0 as routed from runs r join assignments a using (run) group by all order by all",
    )
    assert frame.to_dict("list") == {"name": ["first", "second"], "status": ["complete", "running"], "routed": [True, True]}


def test_every_type_is_shown(growing: Path) -> None:
    query = """select 1 as a, 2 as a, map {'k': 1} as m, {'a': 1, 'b': [1, 2]} as s, 3::hugeint as h, 1.5::decimal(9, 2) as d,
        uuid() as u, time '10:00' as t, date '2020-01-02' as day, 'x'::blob as b, null as n,
        union_value(n := 1) as un, [1, 2] as l, 'a'::enum('a', 'b') as e, true as yes, interval 1 day as i"""
    row = asked(growing, query)[0].iloc[0].to_dict()
    assert {name: row[name] for name in ("a", "a_1", "h", "d", "e", "yes", "m")} == {
        "a": 1, "a_1": 2, "h": 3.0, "d": 1.5, "e": "a", "yes": True, "m": "{'k': 1}"
    }  # fmt: skip


def test_files_hold_what_was_asked(growing: Path) -> None:
    query = "select range as n, 'w' || range as word from range(30000)"
    wanted = pd.DataFrame({"n": range(30000), "word": [f"w{n}" for n in range(30000)]})
    files = {kind: asked(growing, query, kind, rows=100_000) for kind in ("csv", "json", "parquet")}
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(files["csv"])), wanted)
    pd.testing.assert_frame_equal(pd.DataFrame(json.loads(files["json"])), wanted)
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(files["parquet"])), wanted, check_dtype=False)
    assert json.loads(asked(growing, "select 1 as a where false", "json")) == []
    assert asked(growing, "select 1 as a where false", "csv") == b"a\n"


def test_query_ends_with_the_page(growing: Path) -> None:
    class Left(BaseException):
        """As Streamlit ends a script."""

    def leave(seconds: float) -> None:
        if seconds > 0.5:
            raise Left

    with pytest.raises(Left):
        asked(growing, LONG, tick=leave)
    assert left() == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_query_ends_with_the_server(number: signal.Signals, growing: Path) -> None:
    question = {"store": str(growing), "query": LONG, "kind": "table", "rows": 1, "bytes": 1, "memory": 1 << 30, "seconds": 60}
    code = "import sys, json; from moescope.app.sql import processes; print('up', flush=True); "
    code += "processes.desk.ask(json.loads(sys.argv[1]))"
    command = [sys.executable, "-c", code, json.dumps(question)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    until, children = time.monotonic() + 30, list[psutil.Process]()
    while time.monotonic() < until and not any(p.cpu_times().user > 2 for p in children):
        children = psutil.Process(server.pid).children()
        time.sleep(0.05)
    server.send_signal(number)
    server.wait()
    _, alive = psutil.wait_procs(children, 10)
    assert (len(children) > 0, alive) == (True, [])


def test_environment_of_the_server_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_TOKEN", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in processes.environment().values()
