"""Small runs are counted whole. Of large ones a fixed sample of sequences is, so that pages answer at once; they say so."""

from typing import Any

import streamlit as st

from moescope.app.wording import share

EXACT = 1_000_000  # decisions of a run up to which nothing is left out
LAYER = 250_000  # assignments of one layer that are counted beyond that
EVERY = 1_000_000  # assignments of all layers together
LEAST = 5  # documents below which no interval is given, as in moescope.statistics
FEW = """ and {name}token in (select token from tokens where run = {run} and sequence in (select sequence from (
    select sequence, sum(n) over (order by hash(sequence), sequence) - n as before
    from (select sequence, count(*) as n from tokens where run = {run} group by sequence)) where before < {most}))"""
HALF = """case when {units} >= {least} then 1.96 * sqrt({units} / ({units} - 1.0)
      * greatest({own} - 2.0 * {share} * {both} + {share} * {share} * {squares}, 0)) / nullif({total}, 0) end"""
BOUNDS = (  # of a share and its half width, null where that is
    "case when half is not null then greatest({share} - half, 0) end",
    "case when half is not null then least({share} + half, 1) end",
)
Row = dict[str, Any]


def filter_sql(run: Row, assignments: int, each: float, name: str = "a.") -> tuple[str, float]:
    """A condition on `name`token that keeps about so many assignments, `each` of them per token; and the share it keeps.

    Nothing and 1 where the run has EXACT decisions or fewer. Else whole sequences, chosen by a hash of their numbers.
    """
    most = max(int(assignments / max(each, 1)), 1)
    if (run.get("decisions") or 0) <= EXACT or (run["tokens"] or 0) <= 1.5 * most:
        return "", 1.0
    return FEW.format(name=name, run=int(run["run"]), most=most), most / run["tokens"]


def half_width_sql(share: str, own: str, both: str, squares: str, total: str, units: str) -> str:
    """Half of the 95 % interval of a share whose parts come in units (documents): a ratio's linearized standard error.

    `own` and `both` are sums over units of the part's square and of part times whole, `squares` of the whole's square
    (Cochran, Sampling Techniques, 6.4). Null below LEAST units.
    """
    return HALF.format(share=share, own=own, both=both, squares=squares, total=total, units=units, least=LEAST)


def sample_note(kept: float) -> None:
    """Say that a part was counted."""
    if kept < 1:
        st.caption(f":material/info: Counted on {share(kept)} of the run, whole sequences chosen by a hash; the run is large.")
