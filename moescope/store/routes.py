"""Physically wide, logically long: one row per decision in routes_<k>, one row per assignment in the view.

A routes_<k> row holds the k experts of a decision ordered by weight (rank 0 first): e0, w0, p0, e1, ... `slots` packs, four
bits each, the place that the router itself gave to rank 0, 1, ...; `dropped` is a bit mask over ranks. Group-bys through the
long view cost nothing extra, and a filter on `rank` reads one branch. Routers without a fixed k keep the *_long tables.
"""

import duckdb

_KEYS = ("run", "forward", "router", "iteration", "token")
_LONG = ", ".join([*_KEYS, "rank, expert, weight, slot, buffer_position, dispatch_weight, dropped"])
_FIXED = (
    "run uinteger, forward uinteger, router uinteger, iteration utinyint, token uinteger, pool uinteger, "
    "log_sum_exp float, entropy float, margin float, slots ubigint, dropped uinteger"
)

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
    "rank": "0 = largest weight",
    "expert": "experts.expert",
    "weight": "what multiplied the expert",
    "slot": "place in the router's own order, which is not rank",
    "buffer_position": "place in the expert's buffer, or soft slot; null without capacity",
    "dispatch_weight": "soft routing: share of this token in the slot's input",
    "dropped": "chosen but not run, for want of capacity",
}


def create_table(con: duckdb.DuckDBPyConnection, width: int, prefix: str = "routes") -> None:
    """Make <prefix>_<width> if it is not there."""
    columns = ", ".join(f"e{r} usmallint, w{r} float, p{r} uinteger" for r in range(width))
    name = f"{prefix}_{width}"
    con.execute(f"create table if not exists {name} ({_FIXED}, {columns})")
    con.execute(
        f"comment on table {name} is 'Physical rows of routers with {width} experts per decision: read the views instead'"
    )
    words = DECISION_COMMENTS | {
        "slots": "four bits per rank: its place in the router's own order",
        "dropped": "bit per rank: chosen but not run",
    }
    letters = {"e": "expert of rank", "w": "its weight, rank", "p": "its place in the buffer, rank"}
    words |= {f"{letter}{rank}": f"{text} {rank}" for letter, text in letters.items() for rank in range(width)}
    _comment_columns(con, name, {column: text for column, text in words.items() if column != "selected"})


def widths(con: duckdb.DuckDBPyConnection, prefix: str = "routes") -> list[int]:
    """The k of the <prefix>_<k> tables or views that a query in this database would see."""
    names = con.execute(
        "select distinct table_name from information_schema.tables where regexp_full_match(table_name, ?)",
        [prefix + "_[0-9]+"],
    ).fetchall()
    return sorted(int(name.rpartition("_")[2]) for (name,) in names)


def decisions_sql(width: int, prefix: str = "routes") -> str:
    """The decisions of one physical table."""
    chosen = " + ".join(f"(e{r} is not null)::usmallint" for r in range(width))
    return (
        f"select {', '.join(_KEYS)}, pool, ({chosen} - bit_count(dropped))::usmallint as selected, "
        f"log_sum_exp, entropy, margin from {prefix}_{width}"
    )


def assignments_sql(width: int, rank: int, prefix: str = "routes") -> str:
    """The assignments of one rank of one physical table."""
    return (
        f"select {', '.join(_KEYS)}, {rank}::usmallint as rank, e{rank} as expert, w{rank} as weight, "
        f"((slots >> {4 * rank}) & 15)::usmallint as slot, p{rank} as buffer_position, null::float as dispatch_weight, "
        f"((dropped >> {rank}) & 1) = 1 as dropped from {prefix}_{width} where e{rank} is not null"
    )


def create_routed_views(con: duckdb.DuckDBPyConnection) -> None:
    """Make `decisions`, `assignments` and `decided` over the routes_<k> and decided_<k> in sight and the long tables."""
    ks = widths(con)
    long = ", ".join([*_KEYS, "pool, selected, log_sum_exp, entropy, margin"])
    views = {
        "decisions": [*(decisions_sql(k) for k in ks), f"select {long} from decisions_long"],
        "assignments": [
            *(assignments_sql(k, r) for k in ks for r in range(k)),
            f"select {_LONG} from assignments_long",
        ],
        "decided": [assignments_sql(k, r, "decided") for k in widths(con, "decided") for r in range(k)]
        or [f"select {_LONG} from assignments_long where false"],
    }
    for view, selects in views.items():
        con.execute(f"create or replace view {view} as " + " union all ".join(selects))
    _comments(con)


def _comments(con: duckdb.DuckDBPyConnection) -> None:
    said = {
        "decisions": ("One row per router and token: that the router looked, and how sure it was", DECISION_COMMENTS),
        "assignments": ("One row per expert chosen in a decision, as executed", ASSIGNMENT_COMMENTS),
        "decided": (
            "What the router decided, only where the layer executed something else (see runs.warnings)",
            ASSIGNMENT_COMMENTS,
        ),
    }
    for view, (text, columns) in said.items():
        con.execute(f"comment on view {view} is '{text}'")
        _comment_columns(con, view, columns)


def _comment_columns(con: duckdb.DuckDBPyConnection, name: str, columns: dict[str, str]) -> None:
    for column, words in columns.items():
        con.execute(f"comment on column {name}.{column} is '{words.replace(chr(39), chr(39) * 2)}'")
