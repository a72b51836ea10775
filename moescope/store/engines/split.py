"""A query as sums over ranges of tokens: which of its groupings can be counted range by range, and how the counts add up.

A grouping (a SELECT with counts, sums, minima and maxima, of a query or anywhere in it) over `assignments`, `decisions` or
another table that has a row for every token can be: each of its rows lies in one range, whatever it is joined with. What cannot
(medians, distinct counts, windows, groupings over what another gave) is asked of the whole. DuckDB reads and writes the SQL.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import duckdb

BIG = ("assignments", "decisions", "decided", "routing", "logits", "token_labels", "token_text", "tokens")
LARGE = 5  # of these, with a row for every router
_MERGED = {"count_star": "sum", "count": "sum", "sum": "sum", "min": "min", "max": "max"}
_KEEPS_LEFT, _KEEPS_RIGHT = {"INNER", "LEFT", "SEMI", "ANTI"}, {"INNER", "RIGHT"}
_FORBIDDEN = {"SUBQUERY", "WINDOW", "PARAMETER", "LAMBDA", "STAR"}
Node = dict[str, Any]


@dataclass(frozen=True)
class Grouping:
    """One that can be counted by range: SQL for a range of tokens, and how each column is put together (None: grouped by)."""

    node: Node
    place: Node  # of the big table within it
    merged: tuple[str | None, ...]
    scope: list[Node]  # what it reads of `with`, which every range reads whole

    @property
    def whole(self) -> Node:
        """The grouping with what it reads, in no order."""
        return {**self.node, "modifiers": [], "cte_map": {"map": self.scope}}

    def over(self, con: duckdb.DuckDBPyConnection, first: int | None, stop: int | None) -> str:
        """SQL that counts tokens from `first` up to before `stop`; None: without end."""
        bounds = [f"(token >= {first})"] if first is not None else []
        bounds += [f"(token < {stop})"] if stop is not None else []
        whole = f"({' and '.join(bounds) or 'true'})" + (" or token is null" if first is None else "")
        table, before = self.place["table_name"], deepcopy(self.place)
        ranged = _parsed(con, f"from (from {table} where {whole}) as t")["from_table"]
        ranged["alias"] = self.place["alias"] or table
        self.place.clear()
        self.place.update(ranged)
        try:
            return written(con, self.whole)
        finally:
            self.place.clear()
            self.place.update(before)


def filled(node: Node, values: Sequence[Any]) -> bool:
    """Put values in the places of a query's `?`; False where one of them is no whole number, truth or text."""
    kinds = {bool: "BOOLEAN", int: "INTEGER", str: "STRING"}
    if any(type(value) not in kinds for value in values):
        return False
    for child in _children(node):
        if child.get("class") == "PARAMETER":
            value = values[int(child["identifier"]) - 1]
            text = str(value).lower() if isinstance(value, bool) else str(value)
            literal = {"kind": kinds[type(value)], "text": text}
            kept = {name: child[name] for name in ("alias", "query_location", "query_location_length") if name in child}
            child.clear()
            child.update(kept | {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": literal})
        else:
            filled(child, values)
    return True


def parsed(con: duckdb.DuckDBPyConnection, query: str, params: Sequence[Any] | None = None) -> Node | None:
    """The query as a tree, with `params` in it; None for what is no single SELECT, or has other parameters."""
    found = json.loads(con.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()[0][0])
    if found.get("error") or len(found["statements"]) != 1:
        return None
    node: Node = found["statements"][0]["node"]
    asked = [str(one["key"]) for one in found["statements"][0].get("named_param_map", ())]
    numbered = sorted(asked) == sorted(str(number + 1) for number in range(len(params or ())))
    return node if numbered and filled(node, params or ()) else None


def _parsed(con: duckdb.DuckDBPyConnection, query: str) -> Node:
    node = parsed(con, query)
    assert node is not None
    return node


def written(con: duckdb.DuckDBPyConnection, node: Node) -> str:
    """The tree as SQL."""
    tree = json.dumps({"error": False, "statements": [{"node": node, "named_param_map": []}]})
    return str(con.execute("select json_deserialize_sql(?::json)", [tree]).fetchall()[0][0])


def groupings(tree: Node, tables: set[str], aggregates: set[str], scope: Sequence[Node] = ()) -> Iterator[Grouping]:
    """All that can be counted by range. tables: names of the store's tables and views; aggregates: of DuckDB's functions;
    scope: what a `with` around it names."""
    own = tree["cte_map"].get("map", []) if isinstance(tree.get("cte_map"), dict) else []
    inside = [*scope, *own]
    if tree.get("type") == "SELECT_NODE" and (found := _grouping(tree, tables, aggregates, inside)) is not None:
        yield found
        return
    for number, named in enumerate(own):
        yield from groupings(named["value"], tables, aggregates, [*scope, *own[:number]])
    for child in _children({name: value for name, value in tree.items() if name != "cte_map"}):
        yield from groupings(child, tables, aggregates, inside)


def _grouping(node: Node, tables: set[str], aggregates: set[str], scope: Sequence[Node]) -> Grouping | None:
    kinds = {modifier["type"] for modifier in node.get("modifiers", ())}
    unusual = any(node.get(name) for name in ("having", "qualify", "sample"))
    if unusual or kinds - {"ORDER_MODIFIER", "LIMIT_MODIFIER"} or len(node.get("group_sets") or [()]) > 1:
        return None
    merged = [_merged(item, aggregates) for item in node["select_list"]]
    needed = _needed({**node, "cte_map": {}}, scope)
    if not any(merged) or "" in merged or needed is None:
        return None
    named = {one["key"] for one in scope}
    if not _own([{**node, "cte_map": {}}, *needed], tables | named):
        return None
    places = [place for place in _places(node["from_table"]) if place["table_name"] not in named]
    place = next((p for name in BIG for p in places if p["table_name"] == name), None)
    return None if place is None else Grouping(node, place, tuple(merged), deepcopy(needed))


def _needed(node: Node, scope: Sequence[Node]) -> list[Node] | None:
    """Of what a `with` names, that which a node reads, and what that reads; None if a table is in it that is too large to be
    read whole for every range."""
    read = tables_of(node)
    found: list[Node] = []
    for one in reversed(scope):
        if one["key"] in read:
            found.insert(0, one)
            read |= tables_of(one)
    return None if any(tables_of(one) & set(BIG[:LARGE]) for one in found) else found


def tables_of(node: Node) -> set[str]:
    """Names that a query reads from, its own of a `with` included."""
    own = {str(node["table_name"])} if node.get("type") == "BASE_TABLE" else set()
    return own.union(*(tables_of(child) for child in _children(node)))


def _merged(item: Node, aggregates: set[str]) -> str | None:
    """How a column is put together; None if it is grouped by, "" if it cannot be."""
    name = item.get("function_name")
    if name in _MERGED and item["class"] == "FUNCTION" and not item.get("distinct"):
        inside = [*item.get("arguments", ()), item.get("filter") or {}]
        return "" if any(_unfit(child, aggregates) for child in inside) else _MERGED[str(name)]
    return "" if _unfit(item, aggregates) else None


def _unfit(node: Node, aggregates: set[str]) -> bool:
    """Whether there is anything in an expression that is not of one row."""
    if node.get("class") in _FORBIDDEN or node.get("function_name") in aggregates:
        return True
    return any(_unfit(child, aggregates) for child in _children(node))


def _own(nodes: Sequence[Node], tables: set[str]) -> bool:
    """Whether they read nothing but the store: no other part of the query, no parameter, nothing again and again."""
    for node in nodes:
        if node.get("type") == "BASE_TABLE" and node.get("table_name") not in tables:
            return False
        if node.get("class") == "PARAMETER" or node.get("type") == "RECURSIVE_CTE_NODE":
            return False
        if not _own(list(_children(node)), tables):
            return False
    return True


def _places(table: Node) -> Iterator[Node]:
    """Tables of which each row that is found has exactly one."""
    if table.get("type") == "BASE_TABLE" and not table.get("column_name_alias") and not table.get("sample"):
        yield table
    if table.get("type") == "JOIN" and table.get("ref_type") in ("REGULAR", "CROSS", "NATURAL"):
        if table["join_type"] in _KEEPS_LEFT:
            yield from _places(table["left"])
        if table["join_type"] in _KEEPS_RIGHT:
            yield from _places(table["right"])


def _children(node: Any) -> Iterator[Node]:
    for value in node.values() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            yield value
        elif isinstance(value, list):
            yield from (one for one in value if isinstance(one, dict))
