"""What a store, or a run that has not joined one yet, says of every forward, against what independent hooks heard."""

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import torch
from recount import Heard, real_rows

import moescope
from moescope.store.physical.tables import assignments_sql, decisions_sql, widths
from moescope.store.write.unfinished_run import UnfinishedRun

Rows = dict[str, tuple[str, list[tuple[int | None, dict[int, float]]]]]
"""{router: (stack, [(vocabulary id, {expert: weight}) of each token])} of one forward"""
Ask = Callable[[str], Sequence[tuple[Any, ...]]]


def of_store(store: moescope.Store) -> list[Rows]:
    """Every forward of a store, its tokens in the order of their rows."""
    return _forwards(store.rows, {r: (n, s) for r, n, s in store.rows("select router, name, stack from routers")})


def of_part(part: UnfinishedRun) -> list[Rows]:
    """The same of the shards of one run."""
    with duckdb.connect() as con:
        for table in part.tables():
            con.execute(f"create view {table} as select 0::uinteger as run, * from read_parquet({part.files(table)!r})")
        if "vocab_id" not in con.table("tokens").columns:
            con.execute(
                f"create or replace view tokens as select *, null as vocab_id from read_parquet({part.files('tokens')!r})"
            )
        routed = widths(con)
        for view, selects in {
            "decisions": [decisions_sql(k, there) for k, there in routed.items()],
            "assignments": [assignments_sql(k, there, rank) for k, there in routed.items() for rank in range(k)],
        }.items():
            con.execute(f"create view {view} as " + " union all ".join(selects))
        names = {r["router"]: (r["name"], r["stack"]) for r in part.head["routers"]}
        return _forwards(lambda query: con.execute(query).fetchall(), names)


def _forwards(ask: Ask, routers: dict[int, tuple[str, str]]) -> list[Rows]:
    chosen: dict[tuple[int, ...], dict[int, float]] = {}
    for *key, expert, weight in ask("select forward, router, token, expert, weight from assignments where not dropped"):
        chosen.setdefault(tuple(key), {})[expert] = weight
    forwards: dict[int, Rows] = {}
    query = "select forward, router, token, vocab_id from decisions join tokens using (token) order by forward, router, token"
    for forward, router, token, vocab in ask(query):
        name, stack = routers[router]
        _, rows = forwards.setdefault(forward, {}).setdefault(name, (stack, []))
        rows.append((vocab, chosen.get((forward, router, token), {})))
    return list(forwards.values())


def differences(heard: Heard, stored: Rows) -> list[str]:
    """Routers whose rows that are no padding are not, whole, what was heard: token, experts and weights, bit for bit."""
    counted, wrong = dict(heard.counted), []
    for router, (stack, rows) in stored.items():
        truth = counted.pop(router if router in counted else router.rpartition(".")[0])
        given: Any = heard.given.get("decoder_input_ids" if stack == "decoder" else "input_ids", heard.given.get("input_ids"))
        vocab = [None] * len(truth) if given is None else given.flatten().tolist()
        real = real_rows(heard.given, stack, len(truth))
        if _blocks(heard.given.get("attention_mask")) and given.shape[1] > 1:
            real = [place for place, number in enumerate(vocab) if number]  # in these texts 0 is padding and nothing else
        want = [(vocab[place], truth[place]) for place in real]
        again = heard.given.get("use_cache") is False  # a step of generate that runs earlier tokens again, under their own keys
        if (sorted(rows, key=_ordered) != sorted(want, key=_ordered)) if again else rows != want:
            wrong.append(f"{router} ({len(rows)} rows, {len(real)} heard)")
    return wrong + [f"{block} ran and is not there" for block in counted]


def _ordered(row: tuple[Any, dict[int, float]]) -> tuple[str, list[tuple[int, float]]]:
    return str(row[0]), sorted(row[1].items())


def _blocks(mask: Any) -> bool:
    """Whether a mask says which places see which, one for all layers or one for each kind of them."""
    return isinstance(mask, dict) or (torch.is_tensor(mask) and mask.dim() == 4)
