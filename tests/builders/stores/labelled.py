"""Stores of words that can be several things: routing may follow the word, its part of speech, sense or document."""

from pathlib import Path

import numpy as np
import synthetic

from moescope.store import RunWriter

UPOS = np.array(["NOUN", "VERB", "ADJ", "ADV"])
SENSE = np.array(["n.FOOD", "v.motion", "n.PERSON", "v.change", "n.ACT"])


def make(
    path: Path,
    *,
    upos: float = 0.0,
    sense: float = 0.0,
    token: float = 3.0,
    document: float = 0.0,
    topical: float = 0.0,
    documents: int = 30,
    tokens: int = 60,
    vocabulary: int = 60,
    experts: int = 8,
    layers: tuple[int, ...] = (0, 2),
    seed: int = 0,
    k: int = 2,
) -> int:
    """Add a run in which each strength moves logits: of the word, its part of speech (verbs to expert 3), sense, document.

    Every word can be of two parts of speech and two senses; `topical` makes documents prefer one of them.
    """
    rng = np.random.default_rng([seed, 99])
    n = documents * tokens
    doc = np.arange(n) // tokens
    word = np.minimum(rng.zipf(1.4, n), vocabulary) - 1
    lean = rng.normal(size=(documents, 2))
    flip = rng.random((2, n)) < 1 / (1 + np.exp(-topical * lean[doc].T))
    pos, meaning = (word + flip[0]) % len(UPOS), (word + 2 * flip[1]) % len(SENSE)
    read = synthetic.inputs(documents, tokens // 2, ("code", "law", "news"), seed)
    read.vocab_id, read.upos, read.deprel = word, UPOS[pos], SENSE[meaning]
    writer = RunWriter.create(path, synthetic._head(layers, experts, k, "labelled"))
    base = {key: writer.take(key, count) for key, count in synthetic._sizes(read).items()}
    synthetic._write_inputs(writer, read, base, 0, "domain")
    rows = {"token": base["token"] + np.arange(n), "kind": "supersense", "label": list(SENSE[meaning])}
    writer.add("token_labels", rows)
    writer.add("forwards", {"forward": base["forward"], "phase": "prefill", "step": 0, "batch_size": 4, "tokens": n})
    for number, _ in enumerate(layers):
        z = rng.gumbel(size=(n, experts)) + token * rng.normal(size=(vocabulary, experts))[word]
        z += document * rng.normal(size=(documents, experts))[doc]
        z += sense * rng.normal(size=(len(SENSE), experts))[meaning]
        z[UPOS[pos] == "VERB", 3] += upos
        synthetic._write_routes(writer, number, z, k, base, None)
    return writer.close({"status": "complete"}, {"batches": 1})
