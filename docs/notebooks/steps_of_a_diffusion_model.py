# %% [markdown]
# # A diffusion model: do experts change with the timestep?
# A DiT-MoE denoises images in steps; each patch is routed anew at each. The store knows which timestep a forward was told
# (`condition_load`).

# %%
from pathlib import Path

import moescope
from moescope import show

STORE = "dit.duckdb"
if not Path(STORE).exists():
    moescope.trace("dit_moe", "fashion-mnist", STORE, limit=8)
store = moescope.open(STORE)
store.sql("select kind, count(distinct value) as known, count(*) as rows from condition_load group by kind order by kind").df()

# %% [markdown]
# How much of the load moves from the first timesteps to the last: half the sum of differences of shares (0: nothing, 1: all).

# %%
store.sql("""
    with ends as (select min(value) as low, max(value) as high from condition_load where kind = 'timestep'),
    a as (select layer, expert, sum(share) as share from condition_load, ends where kind = 'timestep' and value = low group by all),
    b as (select layer, expert, sum(share) as share from condition_load, ends where kind = 'timestep' and value = high group by all)
    select layer, round(sum(abs(coalesce(a.share, 0) - coalesce(b.share, 0))) / 2, 3) as moved
    from a full join b using (layer, expert) group by layer order by layer
""").df()

# %% [markdown]
# The patches of one image in its last step, and in its first (`forward` names a step).

# %%
show.tokens(store, numbers=True)

# %%
forward = store.rows("select min(forward) from decisions where token = (select min(token) from tokens)")[0][0]
show.tokens(store, numbers=True, forward=forward)

# %% [markdown]
# One patch through all layers, in its last step:

# %%
show.route(store, sequence=0, position=0)

# %%
show.load(store)
