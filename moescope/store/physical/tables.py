"""Physically lean, logically long: one row per decision in routes_<k>, one row per assignment in the view.

A routes_<k> row holds the k experts of a decision ordered by weight (rank 0 first): e0, w0, e1, w1, ... A table has only the
columns that some row needs (see lossless_encoding.py): the views say what the rest would say. Group-bys through the long view
cost nothing extra, and a filter on `rank` reads one branch. Routers without a fixed k keep the *_long tables.
"""

import duckdb

from ...decisions import MAX_WIDTH

_KEYS = ("run", "forward", "router", "iteration", "token")
_LONG = ", ".join([*_KEYS, "rank, expert, weight, slot, buffer_position, dispatch_weight, dropped"])
STEPS = {"log_sum_exp": 1 << 10, "entropy": 1 << 10, "margin": 1 << 16}
"""Summaries of routers that compute in bfloat16 or float16 are whole multiples of one over this."""

DECISION_COMMENTS = {
    "run": "runs.run",
    "forward": "forwards.forward",
    "router": "routers.router",
    "iteration": "recursion step, else 0",
    "token": "tokens.token",
    "pool": "pools.pool; null without capacity",
    "selected": "experts that ran for the token; 0 = none (dropped, skipped, not chosen)",
    "log_sum_exp": "of the router logits",
    "entropy": "of the router's probabilities over experts, nats",
    "margin": "least chosen minus best unchosen probability; negative where a bias or group limit decided",
}
ASSIGNMENT_COMMENTS = {key: DECISION_COMMENTS[key] for key in _KEYS} | {
    "rank": "0 = largest weight; null where an engine's capture does not tell (then slot is its own order)",
    "expert": "experts.expert",
    "weight": "what multiplied the expert",
    "slot": "place in the router's own order, which is not rank",
    "buffer_position": "place in the expert's buffer, or soft slot; null without capacity",
    "dispatch_weight": "soft routing: share of this token in the slot's input",
    "dropped": "chosen but not run, for want of capacity; of a sampled mixture, because another component was drawn",
}
_FIXED = {
    "run": "uinteger", "forward": "uinteger", "router": "uinteger", "token": "uinteger", "iteration": "utinyint",
    "pool": "uinteger", "slots": "ubigint", "dropped": "uinteger", "rest": "integer", "unit": "utinyint", "near": "tinyint",
    "unranked": "boolean",
    **dict.fromkeys(STEPS, "float"), **{f"{name}_n": "integer" for name in STEPS},
}  # fmt: skip
_RANKED = {"e": "usmallint", "w": "float", "h": "usmallint", "p": "uinteger"}
_WORDS = DECISION_COMMENTS | {
    "slots": "four bits per rank: its place in the router's own order; absent = in order",
    "dropped": "bit per rank: chosen but not run; absent = none",
    "unranked": "true: experts are in the engine's own order, which is no rank; absent = by weight",
    "rest": "of two weights: w1 - (1 - w0), in units of 2^-unit",
    "unit": "see rest",
    "near": "of two bfloat16 weights: w0 in 256ths, less 1 - w1 rounded to 256ths",
    **{f"{name}_n": f"{name} in steps of 1/{step}" for name, step in STEPS.items()},
}
_LETTERS = {"e": "expert of rank", "w": "its weight, rank", "h": "its weight as bfloat16 bits, rank"}
_LETTERS |= {"p": "its place in the buffer, rank"}
ROUTED_VIEWS = {
    "decisions": "One row per router and token: that the router looked, and how sure it was",
    "assignments": "One row per expert chosen in a decision, as executed",
    "decided": "What the router decided, only where the layer executed something else (see runs.warnings)",
}


def is_routed(table: str) -> bool:
    """Whether this is the name of a routes_<k> or decided_<k>."""
    kind, _, k = table.rpartition("_")
    return kind in ("routes", "decided") and k.isascii() and k.isdigit() and 0 < int(k) <= MAX_WIDTH and str(int(k)) == k


def column_type(name: str) -> str | None:
    """The type of a column of routes_<k> or decided_<k>; None if they have none of that name."""
    rank = name[1:]
    ranked = rank.isascii() and rank.isdigit() and str(int(rank)) == rank and int(rank) < MAX_WIDTH
    return _FIXED.get(name) or (_RANKED.get(name[0]) if ranked else None)


def ensure_table(con: duckdb.DuckDBPyConnection, table: str, width: int, names: set[str]) -> bool:
    """Make `table`, a routes_<k> or decided_<k>, or give it the columns of `names` that it lacks; whether it lacked some."""
    keys = ("run", "forward", "router", "token")
    con.execute(f"create table if not exists {table} ({', '.join(f'{key} {_FIXED[key]}' for key in keys)})")
    for name in (new := sorted(names - _columns(con, table), key=_order)):
        con.execute(f"alter table {table} add column {name} {column_type(name)}")
    comment_routed(con, "table", table, width)
    return bool(new)


def comment_routed(con: duckdb.DuckDBPyConnection, kind: str, table: str, width: int) -> None:
    """What a routes_<k> or decided_<k> says of itself; `kind`: table, or the view that takes its place."""
    con.execute(
        f"comment on {kind} {table} is 'Physical rows of routers with {width} experts per decision: read the views instead'"
    )
    said = {n: _WORDS.get(n) or f"{_LETTERS[n[0]]} {n[1:]}" for n in _columns(con, table)}
    _comment_columns(con, table, said)


def _order(name: str) -> tuple[int, str]:
    """Experts and weights by rank, then the rest."""
    return (int(name[1:]), name) if name[1:].isdigit() else (99, name)


def widths(con: duckdb.DuckDBPyConnection, prefix: str = "routes") -> dict[int, set[str]]:
    """The columns of every <prefix>_<k> table or view that a query in this database would see, by k."""
    named = " union all ".join(
        f"select {kind}_name as name from duckdb_{kind}s() where database_name = current_database()"
        for kind in ("table", "view")
    )
    rows = con.execute(f"select name from ({named}) where regexp_full_match(name, ?)", [prefix + "_[0-9]+"]).fetchall()
    found = {int(table.rpartition("_")[2]): _columns(con, table) for (table,) in rows}
    return dict(sorted(found.items()))


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {name for (name,) in con.execute("select name from pragma_table_info(?)", [table]).fetchall()}


def iteration_of(there: set[str]) -> str:
    """SQL for the recursion step."""
    return "coalesce(iteration, 0)::utinyint" if "iteration" in there else "0::utinyint"


def ran(there: set[str], *ranks: int) -> str:
    """SQL for: there are experts of these ranks, and all of them ran."""
    mask = sum(1 << rank for rank in ranks)
    kept = [f"coalesce(dropped & {mask}, 0) = 0"] if "dropped" in there else []
    return " and ".join([f"e{rank} is not null" for rank in ranks] + kept)


def weight_of(there: set[str], rank: int) -> str:
    """SQL for the weight of a rank, from whichever columns hold it."""
    half = "(128 + (h{0} & 127)) / (1::ubigint << (134 - (h{0} >> 7)))::double"
    forms = {f"w{rank}": f"w{rank}", f"h{rank}": f"({half.format(rank)})::float"}
    if rank == 0:
        forms["near"] = f"((floor(256.5 - 256 * ({half.format(1)})) + near) / 256)::float"
    if rank == 1:
        forms["rest"] = "((1 - w0::double) + rest / (1::ubigint << unit)::double)::float"
    return _first([sql for column, sql in forms.items() if column in there], "null::float")


def _summary(there: set[str], name: str) -> str:
    forms = [name] * (name in there) + [f"({name}_n / {STEPS[name]}.0)::float"] * (f"{name}_n" in there)
    return f"{_first(forms, 'null::float')} as {name}"


def _first(forms: list[str], none: str) -> str:
    return f"coalesce({', '.join(forms)})" if len(forms) > 1 else (forms or [none])[0]


def decisions_sql(width: int, there: set[str], prefix: str = "routes") -> str:
    """The decisions of one physical table that has the columns `there`."""
    chosen = " + ".join(f"(e{r} is not null)::usmallint" for r in range(width))
    lost = " - coalesce(bit_count(dropped), 0)" if "dropped" in there else ""
    pool = "pool" if "pool" in there else "null::uinteger"
    return (
        f"select run, forward, router, {iteration_of(there)} as iteration, token, {pool} as pool, "
        f"({chosen}{lost})::usmallint as selected, {', '.join(_summary(there, name) for name in STEPS)} from {prefix}_{width}"
    )


def assignments_sql(width: int, there: set[str], rank: int, prefix: str = "routes") -> str:
    """The assignments of one rank of one physical table that has the columns `there`."""
    slot = f"coalesce((slots >> {4 * rank}) & 15, {rank})" if "slots" in there else f"{rank}"
    buffer = f"p{rank}" if f"p{rank}" in there else "null::uinteger"
    lost = f"coalesce((dropped >> {rank}) & 1, 0) = 1" if "dropped" in there else "false"
    place = (
        f"case when not coalesce(unranked, false) then {rank}::usmallint end" if "unranked" in there else f"{rank}::usmallint"
    )
    return (
        f"select run, forward, router, {iteration_of(there)} as iteration, token, {place} as rank, "
        f"e{rank} as expert, {weight_of(there, rank)} as weight, ({slot})::usmallint as slot, {buffer} as buffer_position, "
        f"null::float as dispatch_weight, {lost} as dropped from {prefix}_{width} where e{rank} is not null"
    )


def routed_views(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """SQL of `decisions`, `assignments` and `decided` over the routes_<k> and decided_<k> in sight and the long tables."""
    routed, decided = widths(con), widths(con, "decided")
    long = ", ".join([*_KEYS, "pool, selected, log_sum_exp, entropy, margin"])
    views = {
        "decisions": [*(decisions_sql(k, there) for k, there in routed.items()), f"select {long} from decisions_long"],
        "assignments": [
            *(assignments_sql(k, there, r) for k, there in routed.items() for r in range(k)),
            f"select {_LONG} from assignments_long",
        ],
        "decided": [assignments_sql(k, there, r, "decided") for k, there in decided.items() for r in range(k)]
        or [f"select {_LONG} from assignments_long where false"],
    }
    return {view: " union all ".join(selects) for view, selects in views.items()}


def create_routed_views(con: duckdb.DuckDBPyConnection, comments: bool = True) -> None:
    """Make the views of `routed_views`."""
    for view, sql in routed_views(con).items():
        con.execute(f"create or replace view {view} as {sql}")
    for view, text in ROUTED_VIEWS.items() if comments else ():
        con.execute(f"comment on view {view} is '{text}'")
        _comment_columns(con, view, DECISION_COMMENTS if view == "decisions" else ASSIGNMENT_COMMENTS)


def _comment_columns(con: duckdb.DuckDBPyConnection, name: str, columns: dict[str, str]) -> None:
    for column, words in columns.items():
        con.execute(f"comment on column {name}.{column} is '{words.replace(chr(39), chr(39) * 2)}'")
