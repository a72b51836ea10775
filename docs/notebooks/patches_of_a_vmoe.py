# %% [markdown]
# # A V-MoE: which patches go where?
# A vision model whose experts take patches of an image. Does an expert stand for what is on a patch, or for where it lies?

# %%
from pathlib import Path

import moescope
from moescope import show

STORE = "vmoe.duckdb"
if not Path(STORE).exists():
    moescope.trace("vmoe", "fashion-mnist", STORE, limit=80)
store = moescope.open(STORE)
show.tokens(store, numbers=True)

# %% [markdown]
# Which share of patches has the first expert that is commonest at their place, beside the commonest one of all?

# %%
store.sql("""
    with n as (select layer, y, x, expert, count(*) as n from routing join tokens using (token)
               where rank = 0 and y is not null group by all),
    place as (select layer, y, x, max(n) as top, sum(n) as n from n group by all),
    whole as (select layer, max(n) as top from (select layer, expert, sum(n) as n from n group by all) group by layer)
    select p.layer, round(sum(p.top) / sum(p.n), 3) as by_place, round(any_value(w.top) / sum(p.n), 3) as by_load
    from place p join whole w using (layer) group by p.layer order by p.layer
""").df()

# %% [markdown]
# And the classes: the experts that a class prefers most. `overall` is the expert's share of all classes.

# %%
store.sql("""
    select layer, expert, label, assignments, round(share, 3) as share, round(overall, 3) as overall,
           round(share / overall, 2) as lift
    from label_load where kind = 'class' and assignments >= 30 order by lift desc, layer, expert limit 8
""").df()

# %%
show.load(store)

# %% [markdown]
# A map of positions: by place, the share of patches whose first expert in the last layer is the busiest one.

# %%
busy = store.sql("""
    with last as (select * from routing join tokens using (token)
                  where layer = (select max(layer) from routers) and rank = 0 and y is not null),
    top as (select arg_max(expert, n) as expert from (select expert, count(*) as n from last group by expert))
    select y, x, avg((last.expert = top.expert)::int) as share from last, top group by all order by y, x
""").df()
busy.pivot(index="y", columns="x", values="share").round(2)
