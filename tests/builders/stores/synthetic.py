"""Stores with known structure: routing by chance, plus what is planted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moescope.store import RunWriter

UPOS = ("NOUN", "VERB", "ADJ", "DET", "PUNCT")
DEPREL = {"NOUN": ("nsubj", "obj"), "VERB": ("root", "xcomp"), "ADJ": ("amod",), "DET": ("det",), "PUNCT": ("punct",)}
Plant = Callable[["Inputs", int, np.ndarray], None]


@dataclass
class Inputs:
    """What all runs of a store read: one entry per token."""

    document: np.ndarray
    sequence: np.ndarray
    position: np.ndarray
    vocab_id: np.ndarray
    upos: np.ndarray
    deprel: np.ndarray
    domain: np.ndarray
    patch: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))


def inputs(documents: int, tokens: int, domains: Sequence[str], seed: int, side: int = 0, vocabulary: int = 40) -> Inputs:
    """`documents` of two sequences each, of `tokens` tokens (images of `side` x `side` patches where side is given)."""
    rng = np.random.default_rng(seed)
    per = side * side if side else tokens
    sequences = documents * (1 if side else 2)
    n = sequences * per
    sequence = np.arange(n) // per
    document = sequence if side else sequence // 2
    words = np.array(UPOS)[np.arange(vocabulary) % len(UPOS)]
    vocab_id = rng.integers(0, vocabulary, n)
    upos = words[vocab_id]
    deprel = np.array([rng.choice(DEPREL[u]) for u in upos])
    domain = np.array(domains)[document % len(domains)]
    position = np.arange(n) % per
    patch = np.stack([position // side, position % side], 1) if side else np.zeros((0, 2), int)
    return Inputs(document, sequence, position, vocab_id, upos, deprel, domain, patch)


def verbs(expert: int = 3, strength: float = 5.0) -> Plant:
    """`expert` takes the verbs, in every layer."""
    return lambda read, layer, logits: logits.__setitem__((read.upos == "VERB", expert), strength)


def specialist(domain: str, expert: int = 5, strength: float = 3.0) -> Plant:
    """`expert` takes a domain, in every layer."""
    return lambda read, layer, logits: logits.__setitem__((read.domain == domain, expert), strength)


def dead(expert: int) -> Plant:
    """`expert` is never chosen."""
    return lambda read, layer, logits: logits.__setitem__((slice(None), expert), -50.0)


def tilt(strength: float) -> Plant:
    """Every expert's logit leans by its number: uneven load without any structure."""

    def plant(read: Inputs, layer: int, logits: np.ndarray) -> None:
        logits += strength * np.arange(logits.shape[1]) / logits.shape[1]

    return plant


def corner(expert: int = 1, strength: float = 5.0) -> Plant:
    """`expert` takes the patch at row 0, column 0."""
    return lambda read, layer, logits: logits.__setitem__(((read.patch == 0).all(1), expert), strength)


def make(
    path: Path,
    *plants: Plant,
    documents: int = 24,
    tokens: int = 40,
    layers: Sequence[int] = (0, 2, 3),
    experts: int = 8,
    k: int = 2,
    seed: int = 0,
    input_seed: int = 0,
    domains: Sequence[str] = ("code", "law", "news"),
    side: int = 0,
    logits: bool = False,
    noise: float = 0.0,
    name: str = "synthetic",
    label: str = "domain",
    capacity: int | None = None,
) -> int:
    """Add a run to the store at `path` (made where it is missing); gives its number.

    `seed` moves the routing, `input_seed` the inputs; `noise` disturbs the logits of an otherwise equal run.
    """
    read = inputs(documents, tokens, domains, input_seed, side)
    writer = RunWriter.create(path, _head(layers, experts, k, name))
    base = {key: writer.take(key, count) for key, count in _sizes(read).items()}
    _write_inputs(writer, read, base, side, label)
    writer.add(
        "forwards", {"forward": base["forward"], "phase": "prefill", "step": 0, "batch_size": 4, "tokens": len(read.position)}
    )
    for number, layer in enumerate(layers):
        rng, other = np.random.default_rng([seed, layer]), np.random.default_rng([seed + 1, layer, 7])
        z = rng.gumbel(size=(len(read.position), experts))
        for plant in plants:
            plant(read, layer, z)
        z += noise * other.normal(size=z.shape)
        _write_routes(writer, number, z, k, base, capacity)
        if logits:
            rows = [row.astype("f4") for row in z]
            token = base["token"] + np.arange(len(z))
            writer.add("logits", {"forward": base["forward"], "router": number, "iteration": 0, "token": token, "logits": rows})
    return writer.close({"status": "complete"}, {"batches": 1})


def _sizes(read: Inputs) -> dict[str, int]:
    return {"forward": 1, "sequence": int(read.sequence.max()) + 1, "token": len(read.position)}


def _head(layers: Sequence[int], experts: int, k: int, name: str) -> dict[str, Any]:
    common = {
        "stack": "decoder",
        "block_type": "ffn",
        "contract": "triple",
        "kind": "token_choice",
        "experts": experts,
        "top_k": k,
        "score": "softmax",
    }
    return {
        "run": {"name": name, "started": "2026-01-01"},
        "model": {"name": "synthetic", "family": "mixtral", "weights_sha256": "x", "dtype": "float32"},
        "routers": [dict(router=i, name=f"layers.{layer}.mlp.gate", layer=layer, **common) for i, layer in enumerate(layers)],
        "experts": [{"router": i, "expert": e, "role": "routed"} for i in range(len(layers)) for e in range(experts)],
    }


def _write_inputs(writer: RunWriter, read: Inputs, base: dict[str, int], side: int, label: str) -> None:
    first = np.unique(read.sequence, return_index=True)[1]
    sequence = base["sequence"] + np.arange(len(first))
    domain = list(read.domain[first])
    row = np.arange(len(first)) // (1 if side else 2)
    part = np.arange(len(first)) % (1 if side else 2)
    rows = {"sequence": sequence, "source": "made", "source_row": row, "part": part, "beam": 0, "stack": "decoder"}
    rows |= {"document": [f"document {d}" for d in read.document[first]], "tokens": np.bincount(read.sequence)}
    writer.add("sequences", rows | {"domain": domain} | ({"height": side, "width": side} if side else {}))
    writer.add("sequence_labels", {"sequence": sequence, "kind": label, "label": domain})
    token = base["token"] + np.arange(len(read.position))
    rows = {
        "token": token,
        "sequence": base["sequence"] + read.sequence,
        "position": read.position,
        "special": False,
        "generated": False,
    }
    if side:
        writer.add("tokens", rows | {"unit": "patch", "y": read.patch[:, 0], "x": read.patch[:, 1]})
        return
    writer.add("tokens", rows | {"unit": "text", "vocab_id": read.vocab_id, "word": read.position})
    writer.add("vocab", {"vocab_id": np.unique(read.vocab_id), "text": [f"w{i}" for i in np.unique(read.vocab_id)]})
    for kind, labels in (("upos", read.upos), ("deprel", read.deprel)):
        writer.add("token_labels", {"token": token, "kind": kind, "label": list(labels)})


def _write_routes(writer: RunWriter, router: int, z: np.ndarray, k: int, base: dict[str, int], capacity: int | None) -> None:
    order = np.argsort(-z, axis=1, kind="stable")[:, : k + 1]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    best = np.take_along_axis(p, order, 1)
    weight = best[:, :k] / best[:, :k].sum(1, keepdims=True)
    columns: dict[str, Any] = {f"e{r}": order[:, r].astype("u2") for r in range(k)}
    columns |= {f"w{r}": weight[:, r].astype("f4") for r in range(k)}
    columns["dropped"] = np.zeros(len(z), "u4")
    if capacity is not None:
        columns["dropped"] = _dropped(order[:, :k], capacity, z.shape[1])
        columns["pool"] = 0
        pool = {"forward": base["forward"], "router": router, "pool": 0, "tokens": len(z), "capacity": capacity}
        writer.add("pools", pool)
    entropy = -(p * np.log(p)).sum(1)
    lse = np.log(np.exp(z).sum(1))
    slots = sum(r << (4 * r) for r in range(k))
    keys = {
        "forward": base["forward"],
        "router": router,
        "iteration": 0,
        "token": base["token"] + np.arange(len(z)),
        "slots": slots,
    }
    margin = best[:, k - 1] - (best[:, k] if best.shape[1] > k else 0)
    writer.add(f"routes_{k}", keys | {"log_sum_exp": lse, "entropy": entropy, "margin": margin} | columns)


def _dropped(chosen: np.ndarray, capacity: int, experts: int) -> np.ndarray:
    """First choices of all tokens take places before second choices, in token order."""
    used, mask = np.zeros(experts, int), np.zeros(len(chosen), "u4")
    for rank in range(chosen.shape[1]):
        for row, expert in enumerate(chosen[:, rank]):
            used[expert] += 1
            mask[row] |= (used[expert] > capacity) << rank
    return mask
