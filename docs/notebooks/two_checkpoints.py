# %% [markdown]
# # Two checkpoints
# A Switch Transformer whose balancing loss looks at each layer and the whole batch, and its twin, trained with the loss that
# Transformers has, which joins the layers of a side and looks at each sequence. Same data, same store: what became of its experts?

# %%
from pathlib import Path

import moescope
from moescope import show

STORE = "switch.duckdb"
if not Path(STORE).exists():
    for model in ("switch", "switch-collapsed"):
        moescope.trace(model, "text", STORE, limit=12, name=model)
store = moescope.open(STORE)
store.sql("select run, name, tokens, decisions from runs order by run").df()

# %% [markdown]
# The maps have one scale (0 to 2 times an even load), so they may be laid beside each other.

# %%
show.load(store, run=0)

# %%
show.load(store, run=1)

# %% [markdown]
# In numbers: by layer, how even the load is (1 = even), the largest expert's share, and how many experts never ran.

# %%
store.sql("""
    select a.stack, a.layer, round(a.normalized, 3) as even, round(b.normalized, 3) as even_after,
           round(a.busiest_share, 3) as busiest, round(b.busiest_share, 3) as busiest_after, a.dead, b.dead as dead_after
    from load_balance a join load_balance b using (stack, layer) where a.run = 0 and b.run = 1 order by stack, layer
""").df()

# %% [markdown]
# What of the load was asked for and not run, because the expert's places were taken?

# %%
store.sql("""
    select run, stack, round(sum(dropped) / sum(assignments + dropped), 3) as dropped
    from expert_load group by all order by run, stack
""").df()

# %% [markdown]
# And the same tokens: which share of them has the same first expert in both, beside what their loads alone would give?

# %%
store.sql("""
    with first as (
      select r.run, s.source, s.source_row, coalesce(s.part, '') as part, r.stack, r.position, r.layer, r.expert
      from routing r join sequences s using (sequence) where r.rank = 0),
    n as (select run, stack, layer, expert, count(*) as n from first group by all),
    p as (select run, stack, layer, expert, n / sum(n) over (partition by run, stack, layer) as p from n),
    chance as (select stack, layer, sum(a.p * b.p) as chance from p a join p b using (stack, layer, expert)
               where a.run = 0 and b.run = 1 group by all)
    select stack, layer, count(*) as tokens, round(avg((a.expert = b.expert)::int), 3) as same,
           round(any_value(chance), 3) as chance
    from first a join first b using (source, source_row, part, stack, position, layer) join chance using (stack, layer)
    where a.run = 0 and b.run = 1 group by all order by stack, layer
""").df()
