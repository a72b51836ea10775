"""One store with a run for every question: text with labels, twins, conditions, depth, modalities; planted, or by chance."""

from pathlib import Path

import labelled
import numpy as np
import synthetic
import told

from moescope.store import RunWriter
from moescope.store.write.change import change_store

DOCUMENTS = 12
OPTIONS = {"signatures": {"seeds": 0}}  # maps take seconds and say nothing that is tested


def written(path: Path, planted: bool) -> Path:
    """The last run is text with labels; the one before it has the inputs of the one before that."""
    rng = np.random.default_rng(5)
    _modalities(path, planted, rng)
    _depths(path, planted, rng)
    _conditions(path, planted, rng)
    for noise in (0.0, 0.3):
        synthetic.make(path, seed=1, noise=noise if planted else 0.0, documents=DOCUMENTS, logits=True, name=f"noise {noise}")
    strength = 3.0 if planted else 0.0
    labelled.make(
        path, upos=strength, sense=strength / 2, document=strength / 2, token=1.0, documents=DOCUMENTS, tokens=48, seed=2
    )
    change_store(path, lambda con: con.execute("update sequences set source = 'text' where run = 5"))
    return path


def _modalities(path: Path, planted: bool, rng: np.random.Generator) -> None:
    chosen = rng.integers(0, 4, (1, DOCUMENTS * 8, 1))
    if planted:
        chosen[0, ::2, 0] = 1
    router = {"router": 0, "experts": 4, "top_k": 1, "score": "softmax"}
    entropy = {0: rng.random((1, DOCUMENTS * 8))}
    told.written(path, [router], {0: chosen}, [], tokens=8, units=("patch", "text"), entropy=entropy, name="modalities")


def _depths(path: Path, planted: bool, rng: np.random.Generator) -> None:
    routers = [{"router": r, "experts": 1, "top_k": 1, "kind": "depth", "block_type": f"block.{r}"} for r in (0, 1)]
    depth = rng.integers(0, 3, DOCUMENTS * 6)
    labels = {"upos": rng.permuted(np.array(["NOUN", "VERB"] * (DOCUMENTS * 3)).reshape(DOCUMENTS, 6), axis=1).ravel()}
    if planted:
        depth[labels["upos"] == "NOUN"] = 2
    chosen = {r: np.where(depth > r, 0, -1)[None, :, None] for r in (0, 1)}
    told.written(path, routers, chosen, [], tokens=6, units=("text",), labels=labels, text=True, name="depths")


def _conditions(path: Path, planted: bool, rng: np.random.Generator) -> None:
    chosen = rng.integers(0, 4, (3, DOCUMENTS * 4, 1))
    if planted:
        chosen[0, ::2] = 2
    router = {"router": 0, "experts": 4, "top_k": 1}
    told.written(path, [router], {0: chosen}, told.timesteps(900, 500, 100), tokens=4, name="conditions")


def lacking(path: Path, what: str) -> Path:
    """A run that lacks something: everything, documents but one, or labels."""
    if what == "empty":
        RunWriter.create(path, synthetic._head((0, 2), 4, 2, what)).close({"status": "complete"}, {"batches": 0})
    elif what == "one document":
        labelled.make(path, upos=3.0, documents=1, tokens=40)
    else:
        labelled.make(path, upos=3.0, documents=8, tokens=20)
        bare = ("delete from sequence_labels", "delete from token_labels", "delete from label_rollup",
                "update sequences set domain = null")  # fmt: skip
        change_store(path, lambda con: [con.execute(sql) for sql in bare])
    return path
