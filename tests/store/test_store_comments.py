"""The comment of every column is its own: stated beside it, or of the very column that a view takes over."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import handmade
import pytest

import moescope
from moescope.store.schema import statements

_STATED = re.compile(r'^  (?:[^\n]*[\s.])?"?(\w+)"?,? -- ([^\n]+)$', re.M)
VIEWS = {name: (statement, dict(_STATED.findall(statement))) for _, name, statement, _ in statements("views")}
TABLES = {name: dict(_STATED.findall(re.sub(r'^  "?(\w+)"? [^\n]*? -- ', r"  \1 -- ", statement, flags=re.M)))
          for _, name, statement, _ in statements("schema")}  # fmt: skip


def parsed(statement: str) -> dict[str, Any]:
    """What DuckDB reads in the first select of a view."""
    query = re.sub(r"--[^\n]*", "", statement.partition(" as\n")[2]).rstrip().rstrip(";")
    ((text,),) = duckdb.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()
    node: dict[str, Any] = json.loads(text)["statements"][0]["node"]
    return node if node["type"] == "SELECT_NODE" else node.get("left") or node["children"][0]  # of a union


def base_tables(node: Any) -> Iterator[tuple[str, str]]:
    """(alias, table) of everything that stands behind `from` and is no query of its own."""
    if node.get("type") == "BASE_TABLE":
        yield node["alias"] or node["table_name"], node["table_name"]
    for side in ("left", "right"):
        if side in node:
            yield from base_tables(node[side])


def taken_over(statement: str) -> dict[str, str]:
    """{column: table} of what a view takes over whole by `alias.*`."""
    node = parsed(statement)
    tables = dict(base_tables(node["from_table"]))
    stars = [tables[item["relation_name"]] for item in node["select_list"] if item["class"] == "STAR"]
    return {column: table for table in stars for column in TABLES[table]}


def comments(store: moescope.Store, name: str) -> dict[str, str]:
    query = "select column_name, comment from duckdb_columns() where table_name = ? and database_name = current_database()"
    return dict(store.rows(query, [name]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[moescope.Store]:
    path = tmp_path_factory.mktemp("comments") / "run.duckdb"
    handmade.written(path)
    with moescope.open(path, comments=True) as opened:
        yield opened


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_says_what_it_is(store: moescope.Store, view: str) -> None:
    """Nothing comes by its bare name: what is not stated in views.sql is of the table that `alias.*` names."""
    statement, stated = VIEWS[view]
    inherited = {column: TABLES[table][column] for column, table in taken_over(statement).items()}
    found = comments(store, view)
    assert found
    assert found == {column: (inherited | stated).get(column) for column in found}
    assert None not in found.values()


def test_a_name_of_several_tables_is_never_chosen_by_their_order(store: moescope.Store) -> None:
    """`experts` is a number in one table and a set in another, `tokens` and `run` are several things."""
    assert comments(store, "router_summary") | {"name": "the module's path in the model"} == comments(store, "router_summary")
    found = {(view, column): comments(store, view)[column] for view, column in [
        ("router_summary", "experts"), ("router_summary", "kind"), ("router_summary", "layer"), ("router_summary", "run"),
        ("token_text", "token"), ("token_text", "run"), ("token_text", "unit"), ("ablation_effects", "group"),
    ]}  # fmt: skip
    assert found == {
        ("router_summary", "experts"): "routed experts, E",
        (
            "router_summary",
            "kind",
        ): "token_choice | expert_choice | soft | static | hash | dense | tree | global | depth | sampled",
        ("router_summary", "layer"): "the decoder (or encoder) layer's own number; dense layers leave gaps",
        ("router_summary", "run"): "runs.run",
        ("token_text", "token"): "key",
        ("token_text", "run"): "runs.run",
        ("token_text", "unit"): TABLES["tokens"]["unit"],
        ("ablation_effects", "group"): "its value",
    }


def test_a_key_that_a_comment_names_is_there(store: moescope.Store) -> None:
    """`runs.run`, `experts.expert`, ...: a comment that begins so points at a column, and one of the same name."""
    query = "select table_name, column_name, comment from duckdb_columns() where database_name = current_database()"
    for table, column, words in store.rows(query):
        named = re.match(r"([a-z_]+)\.([a-z_]+)\b", words or "")
        if named:
            assert named[2] in TABLES[named[1]], (table, column)
            assert named[2] == column, (table, column)


def test_stores_of_an_earlier_moescope_get_the_words_of_this_one(tmp_path: Path) -> None:
    """Views are made anew where their comments differ, not their SQL alone."""
    path = tmp_path / "run.duckdb"
    handmade.written(path)
    with duckdb.connect(str(path)) as con:
        con.execute("update meta set value = 'of an earlier one' where key = 'views'")
        con.execute("comment on column router_summary.experts is 'the set'")
    handmade.written(path)
    with duckdb.connect(str(path), read_only=True) as con:
        query = "select comment from duckdb_columns() where table_name = 'router_summary' and column_name = 'experts'"
        assert con.execute(query).fetchall() == [("routed experts, E",)]
