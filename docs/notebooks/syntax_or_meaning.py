# %% [markdown]
# # Syntax or meaning?
# An expert that runs for verbs may know verbs, or only the words that happen to be verbs. The way to tell: look at tokens of one
# text whose part of speech differs, and ask whether their experts differ too.

# %%
from pathlib import Path

import moescope
from moescope import analyses, show

STORE = "mixtral.duckdb"
if not Path(STORE).exists():
    moescope.trace("mixtral", "text", STORE, limit=60)
store = moescope.open(STORE)
store.sql("select kind, count(distinct label) as labels, count(*) as tokens from token_labels group by kind order by kind").df()

# %% [markdown]
# Which experts do parts of speech prefer? `lift`: how many times likelier than a token of any part of speech.

# %%
store.sql("""
    select layer, expert, label, assignments, round(share, 3) as share, round(share / overall, 2) as lift
    from token_label_load where kind = 'upos' and assignments >= 50 order by lift desc, layer, expert limit 8
""").df()

# %% [markdown]
# That could be the words alone. Of words that occur with two parts of speech: is the commonest first expert another one?

# %%
pairs = store.sql("""
    with n as (
      select r.layer, r.text, l.label, r.expert, count(*) as n from routing r join token_labels l using (token)
      where l.kind = 'upos' and r.rank = 0 group by all),
    top as (select layer, text, label, arg_max(expert, n) as expert, sum(n) as n from n group by all having sum(n) >= 5)
    select a.layer, a.text, a.label as one, b.label as other, a.expert = b.expert as same
    from top a join top b on a.layer = b.layer and a.text = b.text and a.label < b.label order by all
""").df()
pairs.groupby("layer").same.agg(["mean", "size"]).round(2)

# %% [markdown]
# `mean` near 1: the word decides, whatever it does in its sentence. What the whole analysis says, with the token held constant,
# a null model and intervals over documents:

# %%
try:
    print(analyses.run("syntax", store).verdict.sentence)
except moescope.errors.AnalysisError as why:  # too few documents
    print(why)

# %% [markdown]
# The same by eye: a text, by first expert; the slider goes through the layers.

# %%
show.tokens(store, most=90)
