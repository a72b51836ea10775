"""Trains a small Mixture-of-Recursions language model on prose and licences. About a minute of CPU.

`python -m specimens.systems.mor`; needs the npm packages that specimens/README.md names. Expert choice, three recursions, as
published the balance comes from the capacities (all, 2/3, 1/3) and needs no loss; the auxiliary router by which the paper keeps
the choice causal when it generates is not trained. Text and split are those of the Mixtral specimen, without the other domains.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer

from moescope.inputs import read
from specimens.corpora.corpus import split
from specimens.corpora.sources import DOMAINS
from specimens.corpora.tokens import BOS, rows, streams
from specimens.systems.common import TARGET, begun, fit, parameters, ship

NAME, SEED, BATCH, LENGTH, STEPS, PEAK = "mor", 20, 4, 256, 500, 3e-3
TOKENIZER, READ = "moescope/models/specimens/mixtral", ("law", "prose")
BUILT: dict[str, Any] = {"hidden": 128, "recursions": 3, "choice": "expert", "vocabulary": 4096}


def corpus(steps: int) -> tuple[np.ndarray, dict[str, int]]:
    """Rows (steps · BATCH, LENGTH) that begin with `<s>`, and the tokens that each domain has."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER).backend_tokenizer
    ids = streams(tokenizer, {domain: split(list(DOMAINS[domain]()))[0] for domain in READ})
    data = rows(ids, LENGTH - 1, steps * BATCH, SEED)
    first = np.full((len(data), 1), tokenizer.token_to_id(BOS))
    return np.concatenate([first, data], axis=1), {domain: len(stream) for domain, stream in ids.items()}


@torch.no_grad()
def heldout_loss(model: nn.Module, passages: int = 40) -> float:
    """Mean over held-out passages of prose and licences, each alone and cut at LENGTH, of the nats a token."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    texts = [e.text for e in read("text").examples if e.labels["domain"] in READ]
    cut = [tokenizer(t, return_tensors="pt").input_ids[:, :LENGTH] for t in texts[:: max(1, len(texts) // passages)]]
    return float(torch.stack([model(ids, labels=ids).loss for ids in cut]).mean())


def main() -> None:
    """Trains and ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED, help="Of the weights that training begins with.")
    parser.add_argument("--folder", type=Path, default=TARGET)
    asked = parser.parse_args()
    steps = asked.steps
    data, available = corpus(steps)
    model = begun(NAME, BUILT, asked.seed)
    before = heldout_loss(model)

    def loss_of(step: int) -> Tensor:
        ids = torch.from_numpy(data[step * BATCH : (step + 1) * BATCH])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
        return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())

    seconds = fit(model, loss_of, steps, PEAK)
    loss = {"before": round(before, 4), "after": round(heldout_loss(model), 4)}
    recipe = {
        "data": ", ".join(READ), "seed": asked.seed, "steps": steps, "batch": BATCH, "length": LENGTH,
        "peak_learning_rate": PEAK, "tokens": int(data.size), "training_tokens_available": available,
        "parameters": parameters(model), "cpu_seconds": round(seconds), "heldout_loss": loss,
    }  # fmt: skip
    ship(NAME, model, BUILT, recipe, asked.folder)


if __name__ == "__main__":
    main()
