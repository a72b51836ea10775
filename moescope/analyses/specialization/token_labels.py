"""Specialization by a label of tokens (role, reasoning, upos, ...), per router.

As by a label of sequences: `share of load by label` N_ED / sum_E N_ED, `I(label; expert)` in bits, `JSD` of the loads of two
labels. A document has several of them, so the null deals labels anew to what documents did at one label: the tokens of a
document that share one stay together. Where a kind has one value, tokens without it are compared with those that have it.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from ...statistics import Pool
from ...store.schema import quote
from .._shared.arrays.document_counts import Table, tables
from .._shared.dealt_labels import Pooled, settled
from .._shared.scope import Scope
from .._shared.value_figures import ByValue, share
from .labels import lifted

ROLE = "role"
WITHOUT = "none"
PAIRS = 45  # pairs of labels that are given


def kind_of_tokens(here: Scope, by: str | None) -> str | None:
    """The kind asked for, if tokens have it and sequences do not; by default the role, where sequences have no labels."""
    of_sequences, of_tokens = here.kinds(), here.kinds("token")
    if by is None:
        return ROLE if of_tokens.get(ROLE, 0) > 1 and not any(labels > 1 for labels in of_sequences.values()) else None
    return by if by not in of_sequences and by in of_tokens else None


def counts_sql(here: Scope, kind: str) -> str:
    """Assignments that ran by document, router, label and expert."""
    one = here.kinds("token")[kind] < 2
    label = f"coalesce(l.label, {quote(WITHOUT)})" if one else "l.label"
    return f"""with units as ({here.units_sql()})
select u.unit, a.router, {label} as label, a.expert, count(*) as n from assignments a join tokens t using (token)
{"left " if one else ""}join token_labels l on l.token = a.token and l.kind = {quote(kind)}
join (select sequence, unit from units) u using (sequence) where a.run = {here.run} and not a.dropped group by all"""


def by_token_label(here: Scope, kind: str, sql: str) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Figures of all routers, and the shares of their cells beside those over all labels."""
    rows: list[pd.DataFrame | Pooled] = []
    pools: dict[str, Pool] = {}
    for table in tables(here, sql):
        known = np.flatnonzero(table.total.sum(1) > 0)
        found = ByValue(Table(table.router, [table.labels[i] for i in known], table.counts[:, known]), "label", kind)
        pairs = list(combinations(range(len(known)), 2)) if len(known) > 1 else []
        if pairs:
            rows += [*found.information(), found.loads(pools), *found.divergences(pairs if len(pairs) <= PAIRS else [], "pair")]
    done = settled(rows)
    shares = [row for row in done if (row["name"] == share("label")).all()]
    empty = pd.DataFrame(columns=["stack", "layer", "router", "expert", "subset", "value", "overall", "lift", "pmi", "n"])
    return done, pd.concat([lifted(s, s["chance"].to_numpy(float)) for s in shares], ignore_index=True) if shares else empty
