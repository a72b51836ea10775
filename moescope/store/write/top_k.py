"""How many experts a router's decisions have, by the rows: `routers.top_k` is what ran, not what was planned."""

import json
from collections.abc import Mapping, Sequence

import duckdb

from ...words import listed
from ..physical.tables import widths


def settle_top_k(con: duckdb.DuckDBPyConnection, run: int, rows: Mapping[str, str] | None = None) -> None:
    """Where decisions of a router have other numbers of places than its `top_k`, correct that (null if they differ), and say so
    in the run's warnings. `rows`: all that the run has (SQL by table), where they are known."""
    own = {k: f"routes_{k} where run = {run}" for k in widths(con)}
    if rows is not None:
        own = {k: f"({rows[table]})" for k in own if (table := f"routes_{k}") in rows}
    planned = con.execute("select router, name, top_k from routers where run = ? order by router", [run]).fetchall()
    there = [k for k, sql in own.items() if con.execute(f"select 1 from {sql} limit 1").fetchall()]
    if len(there) == 1 and all(k in (None, there[0]) for _, _, k in planned):
        return
    ran: dict[int, set[int]] = {}
    for k in there:
        for (router,) in con.execute(f"select distinct router from {own[k]}").fetchall():
            ran.setdefault(router, set()).add(k)
    others: dict[tuple[int | None, tuple[int, ...]], list[str]] = {}
    for router, name, k in planned:
        if (found := ran.get(router)) and found != {k} and (k is not None or len(found) > 1):
            others.setdefault((k, tuple(sorted(found))), []).append(name)
            con.execute(
                "update routers set top_k = ? where router = ?", [*found, router] if len(found) == 1 else [None, router]
            )
    if others:
        _say(con, run, [_sentence(names, k, found) for (k, found), names in others.items()])


def _sentence(names: Sequence[str], planned: int | None, found: tuple[int, ...]) -> str:
    which = listed(names)
    if len(found) == 1:
        return f"{which}: ran {found[0]} experts per decision, not the {planned} that were proved"
    said = f"{', '.join(map(str, found[:-1]))} and {found[-1]}"
    return f"{which}: k changed while it was traced ({said} experts per decision), so that routers.top_k is null"


def _say(con: duckdb.DuckDBPyConnection, run: int, sentences: list[str]) -> None:
    """Add to the run's warnings what is not there yet."""
    ((before,),) = con.execute("select warnings from runs where run = ?", [run]).fetchall()
    warnings = json.loads(before) if before else []
    warnings += [sentence for sentence in sentences if sentence not in warnings]
    con.execute("update runs set warnings = ? where run = ?", [json.dumps(warnings), run])
