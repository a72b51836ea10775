"""Which experts a router ranks behind those that ran for a token, and what may be said of that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import store_access
from moescope.store import ranking

DECIDED = """
select router, iteration, token, forward, any_value(logits) as logits, list(expert) as chosen
from (select * from logits where run = ? and token between ? and ?) l
join (select * from assignments where run = ? and token between ? and ?) a using (run, forward, router, iteration, token)
group by all order by forward"""
ROUTERS = "select router, kind, score, extra from routers where run = ?"
WINDOW = 64  # tokens around this one, by whose decisions a rule is known
MOST, NAMED = 3, 8  # experts in a cell, layers in a sentence
Key = tuple[int, int]


@dataclass(frozen=True)
class Next:
    """What comes next in one router, for one token."""

    experts: list[tuple[int, float]]  # the best others with what they are ranked by
    rule: str  # how they are ranked
    known: bool  # the router's own rule, by its decisions around here; else by score only
    on_top: bool  # the experts that ran are the first of that ranking

    @property
    def words(self) -> str:
        """Experts with their values, for a cell of a table."""
        return ", ".join(f"{expert} ({value:.2f})" for expert, value in self.experts) or "–"


def of(token: int, run: int, forward: int | None = None) -> dict[Key, Next]:
    """By router and iteration, in one forward (or the last); nothing where no logits of this token are stored."""
    decided = store_access.frame(DECIDED, run, token, token, run, token, token)
    decided = decided if forward is None else decided[decided["forward"] == forward]
    rules = _rules(str(store_access.path()), store_access.held().look(), run, token // WINDOW * WINDOW) if len(decided) else {}
    found = {}
    for row in decided.to_dict("records"):
        if row["router"] in rules and np.isfinite(row["logits"]).all():
            rule, known = rules[row["router"]]
            found[int(row["router"]), int(row["iteration"])] = _next(rule, known, row)
    return found


@st.cache_data(max_entries=40, show_spinner=False)
def _rules(where: str, state: tuple[Any, ...], run: int, begin: int) -> dict[int, tuple[ranking.Ranking, bool]]:
    """How each router ranks experts, and whether its decisions on the tokens from `begin` on say so.

    Routers in which experts choose tokens have no next one, and are left out.
    """
    span = [run, begin, begin + WINDOW - 1]
    cursor = store_access.held().cursor()
    with store_access.limited(cursor, store_access.LIMIT_S):
        decided = cursor.execute(DECIDED, [*span, *span]).df()
    routers = {row["router"]: row for row in store_access.rows(ROUTERS, run) if row["kind"] not in ("expert_choice", "soft")}
    return {int(router): _rule(routers[router], some) for router, some in decided.groupby("router") if router in routers}


def _rule(router: dict[str, Any], decided: pd.DataFrame) -> tuple[ranking.Ranking, bool]:
    rule = ranking.learn(router["score"], router["extra"], decided["logits"].tolist(), decided["chosen"].tolist())
    return (rule, True) if rule is not None else (ranking.plainest(router["score"]), False)


def _next(rule: ranking.Ranking, known: bool, row: dict[str, Any]) -> Next:
    values = rule.values(np.asarray(row["logits"], dtype=float)[None])[0]
    chosen = [int(e) for e in row["chosen"] if e < len(values)]
    others = [e for e in np.argsort(-values, kind="stable") if e not in chosen and values[e] > -np.inf]
    on_top = len(chosen) == len(row["chosen"]) and ranking.on_top(values, chosen)
    return Next([(int(e), float(values[e])) for e in others[:MOST]], rule.words, known, on_top)


def sentences(found: dict[Key, Next], labels: dict[int, str]) -> list[str]:
    """How the experts that came next were ranked, and where that is not what the router would have taken."""
    said = []
    for rule in dict.fromkeys(one.rule for one in found.values() if one.known):
        where = _where([key for key, one in found.items() if one.known and one.rule == rule], found, labels)
        said.append(f"Next best{where}: what the router ranks next by its own rule, {rule}; the number is what it ranks by.")
    if unknown := [key for key, one in found.items() if not one.known]:
        by = " or ".join(dict.fromkeys(found[key].rule for key in unknown))
        said.append(
            f"Next best{_where(unknown, found, labels)}: by {by} only. What ran does not follow from the stored logits by a "
            "rule that the store knows, so none of these is said to be next in the router's own order."
        )
    if apart := [key for key, one in found.items() if one.known and not one.on_top]:
        said.append(
            f"The experts that ran{_where(apart, found, labels, always=True)} are not the first of the router's own order: "
            "something else decided there, such as an intervention or noise."
        )
    return said


def _where(keys: list[Key], found: dict[Key, Next], labels: dict[int, str], always: bool = False) -> str:
    """As in " in layer 2, layer 3", or nothing where it is all of them."""
    if len(keys) == len(found) and not always:
        return ""
    names = list(dict.fromkeys(labels.get(router, str(router)) for router, _ in keys))
    return " in " + ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
