# %% [markdown]
# # A first finding
# From a model to a claim one can defend, in SQL, pandas and pictures. The model is the small Mixtral that moescope ships, the
# text is held-out text of five domains that is shipped too.

# %%
from pathlib import Path

import numpy as np
import pandas as pd

import moescope
from moescope import show

STORE = "mixtral.duckdb"
if not Path(STORE).exists():
    moescope.trace("mixtral", "text", STORE, limit=60)
store = moescope.open(STORE)
store.sql("select run, name, status, sequences, tokens, decisions from runs").df()

# %% [markdown]
# Is every expert used? A map of layer × expert, in times of an even load; its colours go from 0 to 2 times even for every model.

# %%
show.load(store)

# %% [markdown]
# Nearly evenly. So if an expert has a favourite domain, it must give up others. `label_load` sets each expert's share of a
# domain's assignments (`share`) beside its share of all of them (`overall`), which is what chance gives.

# %%
ratios = store.sql(
    "select layer, expert, label, share / overall as ratio from label_load where kind = 'domain' order by all"
).df()
ratios.pivot_table(index=["layer", "expert"], columns="label", values="ratio").round(2).tail(8)

# %% [markdown]
# Some ratios are large. But a few documents could make them, and documents are what was sampled, not tokens. So: how much does
# the first expert tell of the domain (bits), and how much would it if domains were dealt to documents at random?

# %%
counts = store.sql(
    "select layer, document, domain, expert, count(*) as n from routing where rank = 0 group by all order by all"
).df()
counts["document"] = counts.document.astype("category")
domains = counts.groupby("document", observed=True).domain.first().astype("category").cat.codes.to_numpy()


def information(layer, domains):
    rows = counts[counts.layer == layer]
    table = np.zeros((domains.max() + 1, rows.expert.max() + 1))
    np.add.at(table, (domains[rows.document.cat.codes], rows.expert), rows.n)
    p = table / table.sum()
    expected = p.sum(1, keepdims=True) * p.sum(0)
    return (p[p > 0] * np.log2(p[p > 0] / expected[p > 0])).sum()


random, result = np.random.default_rng(0), []
for layer in sorted(counts.layer.unique()):
    null = [information(layer, random.permutation(domains)) for _ in range(99)]
    seen = information(layer, domains)
    p = (1 + np.sum(np.array(null) >= seen)) / (1 + len(null))
    result.append({"layer": layer, "bits": seen, "null mean": np.mean(null), "null 95 %": np.quantile(null, 0.95), "p": p})
pd.DataFrame(result).round(3)

# %% [markdown]
# Where `bits` stands above the null, routing follows the domain. A text through the layer that tells most of it:

# %%
best = int(pd.DataFrame(result).assign(more=lambda r: r.bits - r["null mean"]).set_index("layer").more.idxmax())
show.tokens(store, layer=best, most=90)

# %% [markdown]
# Domain is told by the tokens themselves too: an expert may read words, not topics. That is the next notebook's question.
