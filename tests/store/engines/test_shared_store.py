"""A store asked of many processes answers as one process does: every analysis, and SQL of every form."""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import experimented
import numpy as np
import pyarrow as pa
import pytest
import questions
import synthetic
from click.testing import CliRunner
from scale import asked_for

import moescope
from moescope import analyses
from moescope.cli import main
from moescope.errors import InputError
from moescope.store.engines import shared as engines
from moescope.store.engines.shared import SharedStore, answers

SPLIT = {
    "load": "select router, expert, count(*) as n, sum(weight) as w from assignments where not dropped group by all",
    "none": "select count(*), min(token), max(expert), sum(rank) from assignments",
    "joined": "select router, s.domain, count(*) filter (rank = 0) as first, max(weight) from assignments a "
    "join tokens t using (token) left join sequences s on s.sequence = t.sequence group by router, s.domain",
    "inside": "with l as (select router, expert, count(*) as n from assignments group by 1, 2) "
    "select router, expert, n / sum(n) over (partition by router) as share from l",
    "with": "with units as (select sequence, dense_rank() over (order by document) as part from sequences), even as (select * "
    "from units where part % 2 = 0) select part, router, count(*) as n from assignments join tokens using (token) "
    "join even using (sequence) where token in (select token from tokens where position < 9) group by all",
    "twice": "select a.router, a.n, b.n from (select router, count(*) as n from decisions group by 1) a "
    "join (select router, count(*) n from assignments group by 1) b using (router)",
    "pairs": "select a.router, a.expert as e, b.expert as f, count(*) as n from assignments a join assignments b "
    "using (forward, router, token, iteration) where a.expert < b.expert group by all order by n desc, e, f, 1 limit 7",
    "union": "select 'a' as what, count(*) from assignments union all select 'd', count(*) from decisions",
    "expressions": "select expert % 3 as third, round(weight, 1) as about, count(weight) as n from assignments group by 1, 2",
    "quoted": 'select router as "a ""b""", count(*) as "select" from decisions group by 1',
    "nothing": "select router, count(*) from assignments where token < 0 group by 1",
    "empty sum": "select sum(weight), count(*) from assignments where token < 0",
}
WHOLE = {
    "median": "select router, median(weight) from assignments group by 1",
    "mean": "select router, avg(weight) from assignments group by 1",
    "distinct": "select router, count(distinct expert) from assignments group by 1",
    "having": "select expert, count(*) as n from assignments group by 1 having n > 3",
    "rows": "select token, expert from assignments where router = 0 order by all limit 5",
    "right": "select r.name, count(*) from assignments a right join routers r using (router) where token is null group by 1",
    "sets": "select router, expert, count(*) from assignments group by grouping sets ((router), (expert))",
    "kept": "select router, expert, share from expert_load",
    "large with": "with a as (select router, token from assignments) select router, count(*) from a join decisions using "
    "(router, token) group by 1",
    "hidden": "with assignments as (select 1 as router, token from tokens) select router, count(*) from assignments group by 1",
    "mixed": "select router, count(*) + 1 as n from assignments group by 1",
}
PARAMETERS = {  # values; whether a range of tokens can be asked with them
    "select router, count(*) from assignments where expert = ? group by 1": ([1], True),
    "select domain, count(*) from assignments join tokens using (token) join sequences s on s.sequence = tokens.sequence "
    "where s.domain <> ? and rank < ? group by 1": (["it's", 1], True),
    "select count(*) from tokens where generated = ?": ([False], True),
    "select router, count(*) from assignments where weight > ? group by 1": ([0.5], False),
    "select count(*) from assignments where expert in (select unnest(?))": ([[1, 2]], False),
    "select median(weight) from assignments where expert = ?": ([1], False),
}


JAVA = pytest.mark.skipif(which("java") is None, reason="Spark needs Java: apt-get install default-jre-headless")


class Here:
    """An engine of this process."""

    name, parts = "here", 3
    asked = 0

    def ask(self, path: Path, opened: tuple[Any, ...] | None, queries: Sequence[str]) -> list[pa.Table]:
        self.asked += len(queries)
        return [answers(path, opened, query) for query in queries]

    def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("shared") / "s.duckdb"
    for seed in (0, 1):
        synthetic.make(store, documents=6, tokens=15, seed=seed)
    return store


@pytest.fixture(scope="module")
def stores(path: Path) -> Iterator[tuple[moescope.Store, SharedStore]]:
    shared = SharedStore(path, Here(), least=2)
    with moescope.open(path) as one, shared:
        yield one, shared
    engines._let_go()


def rows(store: moescope.Store, query: str) -> list[Any]:
    """In an order, floats to nine digits."""
    found = [tuple(round(v, 9) if isinstance(v, float) else v for v in row) for row in store.sql(query).fetchall()]
    return sorted(found, key=repr)


@pytest.mark.parametrize("name", [*SPLIT, *WHOLE])
def test_sql_gives_the_same_rows_and_columns(name: str, stores: tuple[moescope.Store, SharedStore]) -> None:
    one, shared = stores
    query, before = (SPLIT | WHOLE)[name], shared.shared
    assert rows(shared, query) == rows(one, query)
    assert shared.shared - before == (name in SPLIT)
    theirs, ours = shared.sql(query), one.sql(query)
    assert (theirs.columns, theirs.types) == (ours.columns, ours.types)


def test_parameters_and_errors_are_those_of_one_process(stores: tuple[moescope.Store, SharedStore]) -> None:
    one, shared = stores
    for query, (values, split) in PARAMETERS.items():
        before = shared.shared
        assert sorted(shared.rows(query, values)) == sorted(one.rows(query, values)), query
        assert shared.shared - before == split, query
    with pytest.raises(Exception, match="excess parameters: 2"):
        shared.rows(next(iter(PARAMETERS)), [1, 2])
    for wrong in ("select nothing, count(*) from assignments group by 1", "select count(*) from nowhere", "selec"):
        said = []
        for store in stores:
            with pytest.raises(Exception) as raised:
                store.rows(wrong)
            said.append((type(raised.value), str(raised.value)))
        assert said[0] == said[1]


def answer(asked: analyses.Answer) -> Any:
    """What an analysis says, floats to eight digits."""
    frames = {name: frame.round(8).to_csv() for name, frame in asked.frames.items()}
    return str(asked.verdict), asked.notes, frames


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that can answer all analyses: with figures of experiments, and features of its tokens beside it."""
    path = questions.written(tmp_path_factory.mktemp("all") / "all.duckdb", planted=True)
    with moescope.open(path) as store:
        first, last = store.rows("select min(token), max(token) from tokens where run = 4")[0]
    experimented.add(path, run=4, token=first)
    found = np.random.default_rng(0).normal(size=(last + 1 - first, 6)).clip(0)
    np.savez(features_of(path), token=np.arange(first, last + 1), layer=2, features=found.astype(np.float32))
    return path


def features_of(path: Path) -> Path:
    return path.with_name("features.npz")


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, studied: Path) -> Iterator[SharedStore]:
    """The store on an engine, however small it is."""
    made = {
        "here": lambda: Here(),
        "ray": lambda: engines.engine_of("ray"),
        "spark": lambda: engines.engine_of("spark", "local[2]"),
    }
    with SharedStore(studied, made[request.param](), least=2) as opened:
        yield opened


NAMES = [entry["name"] for entry in analyses.catalogue()]
ENGINES = [
    pytest.param("here", marks=asked_for()),
    pytest.param("ray", marks=asked_for("ray", "ray")),
    pytest.param("spark", marks=[asked_for("spark", "pyspark"), JAVA]),
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_every_analysis_gives_the_same_answer(name: str, studied: Path, engine: SharedStore) -> None:
    ours = _alone(name, studied)
    before = engine.shared, engine.whole
    theirs = _asked(name, engine)
    shared, whole = engine.shared - before[0], engine.whole - before[1]
    note = theirs[1].pop()
    assert note.startswith(f"engine {engine.engine.name}: ")
    assert 0 < int(note.split()[4]) <= shared + whole
    assert theirs == ours


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_some_of_what_analyses_ask_is_counted_by_range(studied: Path, engine: SharedStore) -> None:
    before = engine.shared
    for name in ("load", "specialization"):
        _asked(name, engine)
    assert engine.shared - before >= 2


@cache
def _alone(name: str, path: Path) -> Any:
    """What this process says by itself, which is asked once for all engines."""
    with moescope.open(path) as one:
        return _asked(name, one)


def _asked(name: str, store: moescope.Store) -> Any:
    options: dict[str, Any] = questions.OPTIONS.get(name, {})
    options |= {"path": str(features_of(store.path))} if name == "features" else {}
    return answer(analyses.run(name, store, fresh=True, **options))


def test_there_is_no_other_engine(path: Path) -> None:
    with pytest.raises(InputError, match="the address auto is of an engine; say which: ray or spark"):
        moescope.open(path, address="auto")
    with pytest.raises(InputError, match="there is no engine 'dask': there are ray and spark"):
        moescope.open(path, engine="dask")


@pytest.mark.slow
@asked_for("ray", "ray")
def test_ray_gives_the_same_rows_and_the_command_the_same_figures(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moescope.store.engines.shared.LEAST", 2)
    with moescope.open(path) as one, moescope.open(path, engine="ray") as shared:
        assert isinstance(shared, SharedStore)
        shared._least = 2
        for name, query in (SPLIT | WHOLE).items():
            assert rows(shared, query) == rows(one, query), name
        assert shared.shared == len(SPLIT)
    said = [CliRunner().invoke(main, ["analyze", "load", str(path), "--json", *how]) for how in ([], ["--engine", "ray"])]
    assert said[0].exit_code == said[1].exit_code == 0, said[1].output
    figures = [json.loads(one.output) for one in said]
    assert "engine ray: " in figures[1]["notes"].pop()
    assert figures[0] == figures[1]


ON_SPARK = {"median", "mean", "distinct", "having", "right"}  # what is too much for ranges and means the same there
HERE = {"kept", "rows"}  # what needs nobody else


@pytest.mark.slow
@asked_for("spark", "pyspark")
@JAVA
def test_spark_gives_the_same_rows_also_of_what_cannot_be_counted_by_range(path: Path) -> None:
    with moescope.open(path) as one, moescope.open(path, engine="spark", address="local[2]") as shared:
        assert isinstance(shared, SharedStore)
        shared._least = 2
        for name, query in ({"pairs": SPLIT["pairs"], "twice": SPLIT["twice"]} | WHOLE).items():
            before = shared.shared
            assert rows(shared, query) == rows(one, query), name
            assert shared.shared > before or name not in ON_SPARK, name
            assert shared.shared == before or name not in HERE, name
            assert shared.sql(query).types == one.sql(query).types
        with shared.noting() as said:
            shared.rows(WHOLE["median"])
        assert said == [
            "engine spark: 0 of 1 queries were counted over ranges of tokens, the rest by DuckDB in the asking process"
        ]


ADDRESSES = {
    "nonsense": "'nonsense' is no address of a cluster of Spark; say spark://HOST:PORT or local[2]",
    "spark://127.0.0.1:9": "there is no cluster of Spark at spark://127.0.0.1:9: connection refused",
}


@asked_for("spark", "pyspark")
@pytest.mark.parametrize("address", ADDRESSES)
def test_where_no_cluster_of_spark_answers_is_said_at_once(address: str, path: Path) -> None:
    found = CliRunner().invoke(main, ["analyze", "load", str(path), "--engine", "spark", "--address", address])
    assert (found.exit_code, found.output) == (2, f"moescope: {ADDRESSES[address]}\n")


@pytest.mark.parametrize("name", ["ray", "spark"])
def test_an_engine_that_is_not_installed_is_one_sentence(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ray", "pyspark", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, package, None)
    for command in (["analyze", "load", str(path)], ["sql", str(path), "select 1"]):
        found = CliRunner().invoke(main, [*command, "--engine", name])
        assert found.exit_code == 2
        assert f"pip install 'moescope[{name}]'" in found.output
        assert found.output.count("\n") == 1
