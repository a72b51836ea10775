# %% [markdown]
# # Does routing follow form or meaning?
# Four suites, each holding all but one thing constant (see README.md here).
# `python probes/syntax_or_meaning.py [MODEL] [FOLDER]`

# %%
import sys
import tempfile
from pathlib import Path

import pandas as pd

import moescope
from moescope import analyses

HERE = Path(__file__).parent
MODEL = sys.argv[1] if len(sys.argv) > 1 else "mixtral"
FOLDER = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
FOLDER.mkdir(parents=True, exist_ok=True)

# %%
# suite -> (analysis, the kinds of label that differ in it)
QUESTIONS = {
    "pos.conllu": [("senses", "upos")],
    "sense.conllulex": [("senses", "supersense")],
    "agreement.conllulex": [("senses", "supersense2")],
    "roles.conllulex": [("senses", "deprel,supersense2")],
}
SHOWN = {"senses": "overlap, same minus different", "syntax": "I(expert; label | token) (bits)"}

# %%
rows = []
for suite, questions in QUESTIONS.items():
    store = FOLDER / f"{Path(suite).stem}.duckdb"
    if not store.exists():
        moescope.trace(MODEL, str(HERE / suite), str(store))
    for name, kinds in questions:
        try:
            answer = analyses.run(name, store, kinds=kinds)
        except moescope.errors.AnalysisError as refusal:
            print(f"{suite}, {name}: {refusal}")
            continue
        figures = answer.figures(SHOWN[name])
        figures = figures[~figures["estimator"].isin(["plug-in", "within documents"])]  # a probe's document is one sentence
        rows.append(figures.assign(suite=suite, question=name))

# %%
# What counts: q (over routers and kinds of one question), and whether the interval leaves zero out
table = pd.concat(rows, ignore_index=True)
columns = ["suite", "question", "subset", "layer", "value", "ci_low", "ci_high", "p", "q", "n", "units"]
print(table[columns].round(4).to_string(index=False))

# %%
# One sentence per suite
for (suite, question, kind), part in table.groupby(["suite", "question", "subset"], sort=False):
    found = part[part["q"] <= 0.05]
    where = ", ".join(str(layer) for layer in found["layer"]) or "none"
    print(f"{suite}: {question} of {kind}: layers with a finding: {where} (of {len(part)})")
