# %% [markdown]
# # What is this expert for?
# Every expert of a layer on a card; then one of them through its words, its labels and its company.

# %%
from pathlib import Path

import moescope
from moescope import show

STORE = "mixtral.duckdb"
if not Path(STORE).exists():
    moescope.trace("mixtral", "text", STORE, limit=60)
store = moescope.open(STORE)
show.experts(store, layer=2)

# %% [markdown]
# The one whose label stands out most, and the tokens that it takes. `share` is of the token's assignments, `overall` of all.

# %%
frame = show.experts(store, layer=2).frame
expert = int(frame.expert[frame.lift.fillna(0).idxmax()])
print(f"expert {expert}: {frame.label[expert]}, lift {frame.lift[expert]:.1f}")
store.sql(
    """
    select text, assignments, round(share, 2) as share, round(share / overall, 1) as lift from vocab_load
    where layer = 2 and expert = ? and assignments >= 10 order by share desc, assignments desc, text limit 10
""",
    params=[expert],
).df()

# %% [markdown]
# Its company: who runs for the same tokens, beside what chance gives (one of seven others).

# %%
store.sql(
    """
    select other, n, round(share, 3) as share, round(1 / 7, 3) as chance from coactivation
    where layer = 2 and expert = ? order by share desc
""",
    params=[expert],
).df()

# %% [markdown]
# One of its tokens through all layers, and where its text lies in its colours (how much weight it gets).

# %%
token = store.rows("select min(token) from routing where layer = 2 and expert = ? and rank = 0 and position > 10", [expert])[0][
    0
]
show.route(store, token)

# %%
sequence = store.rows("select sequence from tokens where token = ?", [token])[0][0]
show.tokens(store, sequence, layer=2, colour="expert", expert=expert, most=90)

# %% [markdown]
# What follows it: first choices from layer 2 to layer 3, this expert's lit.

# %%
show.flow(store, layer=2, follow=expert)
