"""Which conditions a run's forwards were told, and the counts of experts under each value of one."""

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from ...errors import AnalysisError
from ...store.schema import quote
from .._shared.scope import Scope

FEW = 24  # numbers that are each a value of their own; more are put into BINS of equally many
BINS = 10
MOST = 300  # values that a kind may have


@dataclass(frozen=True)
class Told:
    """One kind of condition: its values in their order, whether they are numbers, and the query of counts by value."""

    kind: str
    values: list[str]
    numbers: bool
    sql: str

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Values that are set side by side: neighbours of numbers, all of few words."""
        many = range(len(self.values))
        if self.numbers:
            return list(pairwise(many))
        return [(i, j) for i in many for j in many[i + 1 :]] if len(many) <= 10 else []


def kinds(here: Scope) -> dict[str, int]:
    """Kinds of conditions of this run, and how many values each has."""
    sql = "select kind, count(distinct coalesce(label, value::varchar)) from conditions where run = ? group by 1 order by 1"
    return dict(here.store.rows(sql, [here.run]))


def choose(here: Scope, wanted: str | None, notes: list[str]) -> list[Told]:
    """The kind asked for, or all with two values or more; AnalysisError where there are none."""
    known = kinds(here)
    have = ", ".join(f"{kind} ({n})" for kind, n in known.items()) or "none"
    if not known:
        raise AnalysisError(
            f"the forwards of run {here.run} were told no condition (timestep, class, task, ...), so nothing can be compared; "
            "trace a denoiser, or say conditions with `with tracer.conditions(task=...)`"
        )
    if wanted and wanted not in known:
        raise AnalysisError(f"no forward of run {here.run} was told a condition {wanted!r}; there are, with values: {have}")
    asked = [wanted] if wanted else [kind for kind, n in known.items() if n > 1]
    if not asked or (wanted and known[wanted] < 2):
        raise AnalysisError(
            f"the conditions of run {here.run} never change (there are, with values: {have}), so nothing can be compared; "
            "trace more than one value of a condition"
        )
    told = [_told(here, kind) for kind in asked]
    for one in told:
        if len(one.values) > MOST:
            notes.append(f"The condition {one.kind} has more than {MOST} values, more than can be compared, and is left out.")
    told = [one for one in told if len(one.values) <= MOST]
    if not told:
        raise AnalysisError(f"every condition of run {here.run} has more than {MOST} words as values: {have}")
    return told


def _told(here: Scope, kind: str) -> Told:
    values = here.store.sql(
        f"select distinct value, label from conditions where run = {here.run} and kind = {quote(kind)}"
    ).df()
    numbers = bool(values["label"].isna().all())
    places = _places(here, kind, numbers and len(values) > FEW)
    named = here.store.sql(f"select name, min(value) as value from ({places}) group by 1 order by 2, 1").df()
    return Told(kind, [str(v) for v in named["name"]], numbers, _counts(here, places))


def _places(here: Scope, kind: str, binned: bool) -> str:
    """Rows (forward, sequence or null, name of the value, value)."""
    mine = f"conditions where run = {here.run} and kind = {quote(kind)}"
    if not binned:
        return f"select forward, sequence, coalesce(label, format('{{:g}}', value)) as name, value from {mine}"
    return f"""
  select forward, sequence, format('{{:g}} – {{:g}}', low, high) as name, low as value
  from (from {mine}) join (
    select value, min(value) over (partition by bin) as low, max(value) over (partition by bin) as high
    from (select value, ntile({BINS}) over (order by value) as bin from (select distinct value from {mine}))) using (value)"""


def _counts(here: Scope, places: str) -> str:
    """Rows (unit, router, label, expert, n, weight): assignments that ran by document, router and value."""
    return f"""with units as ({here.units_sql()}),
ran as (
  select a.router, a.forward, t.sequence, a.expert, count(*) as n, sum(a.weight) as weight
  from assignments a join tokens t using (token) where a.run = {here.run} and not a.dropped group by all),
places as ({places})
select u.unit, r.router, p.name as label, r.expert, sum(r.n)::bigint as n, sum(r.weight) as weight
from ran r join places p on p.forward = r.forward and (p.sequence is null or p.sequence = r.sequence)
join units u on u.sequence = r.sequence group by all"""


def gated(here: Scope) -> set[int]:
    """Routers whose experts all run for every token, so that only their weights can differ (none of them negative)."""
    found = here.store.rows(
        "select l.router from load_rollup l join decision_rollup d using (router) join routers r using (router) "
        f"where l.run = {here.run} and r.experts > 1 and l.expert < r.experts group by l.router, d.decisions, r.experts "
        "having sum(l.assignments) = d.decisions * r.experts and min(l.weight) >= 0 and sum(l.weight) > 0"
    )
    return {int(router) for (router,) in found}


def names(here: Scope) -> pd.DataFrame:
    """Router, its module's path, and its site in the block."""
    return here.routers[["router", "name", "block_type"]].reset_index(drop=True)
