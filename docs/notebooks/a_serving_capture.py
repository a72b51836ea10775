# %% [markdown]
# # A serving capture: does it say what a trace says?
# vLLM gives with each response which experts ran (`enable_return_routed_experts`). What of a trace is in such a capture, and
# what is not? To be able to compare, the capture here is written from a trace, in vLLM's form; put your server's file in its
# place.

# %%
import base64
import io
import json
from pathlib import Path

import numpy as np

import moescope
from moescope import show

STORE, HOME = "mixtral.duckdb", Path(moescope.__file__).parent / "models" / "specimens" / "mixtral"
if not Path(STORE).exists():
    moescope.trace("mixtral", "text", STORE, limit=60)
traced = moescope.open(STORE)


def response(sequence):
    ids = [v for (v,) in traced.rows("select vocab_id from tokens where sequence = ? order by position", [sequence])]
    experts = traced.rows("select expert from routing where sequence = ? order by position, layer, rank", [sequence])
    layers = traced.rows("select count(*) from routers where run = 0")[0][0]
    planes = np.array([e for (e,) in experts], np.uint8).reshape(len(ids), layers, -1)[:-1]  # the last token was not read
    file = io.BytesIO()
    np.save(file, planes)
    choice = {"index": 0, "token_ids": ids[-4:], "routed_experts": base64.b64encode(file.getvalue()).decode()}
    choice |= {"prompt_token_ids": ids[:-4], "finish_reason": "length"}
    usage = {"prompt_tokens": len(ids) - 4, "completion_tokens": 4}
    return {"id": f"cmpl-{sequence}", "object": "text_completion", "choices": [choice], "usage": usage}


sequences = [s for (s,) in traced.rows("select sequence from sequences where run = 0 order by sequence limit 6")]
Path("served.jsonl").write_text("".join(json.dumps(response(s)) + "\n" for s in sequences))
Path("served.duckdb").unlink(missing_ok=True)
imported = moescope.import_vllm("served.jsonl", "served.duckdb", model=HOME / "config.json", tokenizer=HOME)
imported.sequences, imported.warnings

# %% [markdown]
# The same pictures stand over it. What the capture does not have is not made up: weights, entropy and margin are missing.

# %%
served = moescope.open("served.duckdb")
show.tokens(served, layer=2, most=90)

# %% [markdown]
# Decision by decision: of all tokens and layers that both have, how many sets of experts differ?

# %%
columns = "select sequence - (select min(sequence) from sequences) as nth, position, layer, list_sort(list(expert)) as experts"
ask = columns + " from routing where sequence < (select min(sequence) from sequences) + 6 group by all order by all"
one, two = (store.sql(ask).df().set_index(["nth", "position", "layer"]).experts.map(tuple) for store in (traced, served))
both = one.index.intersection(two.index)
{"compared": len(both), "differ": int((one[both] != two[both]).sum())}

# %%
show.load(served)
