"""Worlds without structure, as uneven as real corpora: stores of random routers over documents of every shape; and plants.

In none of them does an expert follow a label of the document, or a label of the token beyond its id and document:

* `equal`: documents of one length; `short`: one label's documents are a twentieth as long; `many`, `most`: 1000 and 4000
  documents of one label against 40 of the other;
* `tilt`: experts are unevenly used; `tokens`: routing follows the token id; `lean`: every document has routing of its own;
* `topics`: a document's topic moves the labels of its tokens and its routing alike;
* `own words`: two of five words are of one label alone, so that they share documents, which lean.

`make_told` makes the same of forwards that were told a timestep and a class, of tokens that are text or patches, with routers
that skip blocks; `make` with `again` adds another router's run over the inputs of a world that is there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import synthetic
import told
from labelled import SENSE, UPOS

from moescope.store import RunWriter

SIZES = ((4, 1), (8, 2), (16, 2), (32, 4), (64, 6), (128, 8))  # E and k, one after the other from world to world


@dataclass(frozen=True)
class World:
    """Numbers and lengths of the documents of every label, and what moves logits."""

    documents: tuple[int, ...] = (12, 12, 12, 12)
    lengths: tuple[int, ...] = (60, 60, 60, 60)
    tilt: float = 0.0
    token: float = 0.0
    lean: float = 0.0
    topical: float = 0.0
    own: float = 0.0
    layers: int = 2


WORLDS = {
    "equal": World(),
    "short": World(lengths=(12, 240, 240, 240)),
    "short, leaning": World(lengths=(12, 240, 240, 240), lean=0.4),
    "many": World((1000, 40), (16, 16)),
    "most": World((4000, 40), (16, 16)),
    "tilt": World(tilt=2.0),
    "tokens": World(token=2.0),
    "topics": World(token=1.0, topical=1.5),
    "own words": World((20, 16, 12, 24), (12, 240, 120, 180), lean=1.0, own=0.4),
}
TOLD = {
    "told": World(lengths=(24,) * 4, lean=0.4),
    "told, short, leaning": World(lengths=(8, 80, 80, 80), lean=0.4),
}


@dataclass(frozen=True)
class Plant:
    """In `layer`, the logits of `expert` are raised by `strength` in documents of label `label` (None: for verbs)."""

    layer: int
    expert: int
    strength: float
    label: int | None = 0


@dataclass(frozen=True)
class Together:
    """In `layer`, tokens move the logits of both experts of `pair` alike, by `strength` standard deviations of their own."""

    layer: int
    pair: tuple[int, int]
    strength: float


def make(path: Path, world: World, seed: int = 0, size: tuple[int, int] = (8, 2), plants: tuple[Plant | Together, ...] = (),
         logits: bool = False, again: int = 0) -> int:  # fmt: skip
    """Add the run of one random router of (E, k) `size` a layer to the store at `path`; gives its number.

    Runs of one `seed` read the same inputs, and decide by themselves if they differ in `again`.
    """
    (experts, k), rng = size, np.random.default_rng([seed, 2026])
    read, lean = _inputs(world, rng)
    rng = np.random.default_rng([seed, 2026, again]) if again else rng
    writer = RunWriter.create(path, synthetic._head(range(world.layers), experts, k, "world"))
    base = {key: writer.take(key, count) for key, count in synthetic._sizes(read).items()}
    synthetic._write_inputs(writer, read, base, 0, "domain")
    n, token = len(read.position), base["token"] + np.arange(len(read.position))
    writer.add("token_labels", {"token": token, "kind": "supersense", "label": list(read.deprel)})
    writer.add("forwards", {"forward": base["forward"], "phase": "prefill", "step": 0, "batch_size": 4, "tokens": n})
    for layer in range(world.layers):
        z = rng.gumbel(size=(n, experts)) + world.tilt * np.arange(experts) / experts
        z += world.token * rng.normal(size=(int(read.vocab_id.max()) + 1, experts))[read.vocab_id]
        z += world.lean * rng.normal(size=(int(read.document.max()) + 1, experts))[read.document]
        z += world.topical * lean[read.document][:, :1] * rng.normal(size=experts)
        for plant in plants:
            if plant.layer == layer:
                _plant(plant, z, read, rng)
        synthetic._write_routes(writer, layer, z, k, base, None)
        if logits:
            rows = {"forward": base["forward"], "router": layer, "iteration": 0, "token": token}
            writer.add("logits", rows | {"logits": [row.astype("f4") for row in z]})
    return writer.close({"status": "complete"}, {"batches": 1})


def make_told(path: Path, world: World, seed: int = 0, size: tuple[int, int] = (8, 2), forwards: int = 3) -> None:
    """The store of a run whose `forwards` were told a timestep and, by the world's labels, a class; every fourth token is text.

    Two routers of (E, k) `size`, and two that skip a block or not, as often as each document likes by itself.
    """
    (experts, k), rng = size, np.random.default_rng([seed, 2027])
    label = np.repeat(np.arange(len(world.documents)), world.documents)
    lengths = np.array(world.lengths)[label]
    document = np.repeat(np.arange(len(label)), lengths)
    routers: told.Rows = [{"router": r, "experts": experts, "top_k": k} for r in (0, 1)]
    chosen, shape = {}, (forwards, len(document), experts)
    for router in (0, 1):
        z = rng.gumbel(size=shape) + world.lean * rng.normal(size=(len(label), experts))[document]
        chosen[router] = np.argsort(-z, axis=2)[..., :k]
        runs = rng.random(shape[:2]) < rng.beta(4, 4, len(label))[document]
        chosen[2 + router] = np.where(runs, 0, -1)[..., None]
        routers += [{"router": 2 + router, "experts": 1, "top_k": 1, "kind": "depth", "block_type": f"block.{router}"}]
    upos, domain = UPOS[rng.integers(0, len(UPOS), len(document))], np.array([f"label {i}" for i in label])[document]
    conditions = [*told.timesteps(*range(forwards)), *told.classes("class", [f"class {i}" for i in label], forwards)]
    told.written(path, routers, chosen, conditions, tokens=lengths, units=("text", "patch", "patch", "patch"),
                 labels={"upos": upos, "domain": domain}, text=True)  # fmt: skip


def _plant(plant: Plant | Together, z: np.ndarray, read: synthetic.Inputs, rng: np.random.Generator) -> None:
    if isinstance(plant, Together):
        z[:, list(plant.pair)] += plant.strength * rng.normal(size=(len(z), 1))
        return
    where = read.upos == "VERB" if plant.label is None else read.domain == f"label {plant.label}"
    z[where, plant.expert] += plant.strength


def _inputs(world: World, rng: np.random.Generator) -> tuple[synthetic.Inputs, np.ndarray]:
    """Documents of two sequences each; and (documents, 2) what each leans to."""
    label = np.repeat(np.arange(len(world.documents)), world.documents)
    length = np.repeat(np.array(world.lengths)[label] // 2, 2)
    sequence = np.repeat(np.arange(len(length)), length)
    n, document = len(sequence), sequence // 2
    position = np.arange(n) - np.repeat(np.cumsum(length) - length, length)
    word = np.minimum(rng.zipf(1.4, n), 60) - 1
    if world.own:
        word = np.where(rng.random(n) < world.own, 60 + 10 * label[document] + rng.integers(0, 10, n), word)
    lean = np.repeat(rng.normal(size=(len(label), 1)), 2, axis=1)
    flip = rng.random((2, n)) < 1 / (1 + np.exp(-world.topical * lean[document].T))
    upos, sense = UPOS[(word + flip[0]) % len(UPOS)], SENSE[(word + 2 * flip[1]) % len(SENSE)]
    domain = np.array([f"label {i}" for i in range(len(world.documents))])[label[document]]
    return synthetic.Inputs(document, sequence, position, word, upos, sense, domain), lean
