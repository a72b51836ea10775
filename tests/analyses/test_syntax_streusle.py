"""Form against meaning on gold labels of both (STREUSLE), with routing that follows what we say: real words, real ambiguity."""

from pathlib import Path

import numpy as np
import pytest
import synthetic

from moescope import analyses
from moescope.inputs import read
from moescope.store import RunWriter

CORPUS = Path(__file__).parents[2] / "../shared/data/streusle/streusle.ud_dev.conllulex"
TOKEN = "I(expert; label | token) (bits)"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPUS.exists(), reason="../shared/data/streusle is not there"),
]


def write(path: Path, seed: int, follows: str | None) -> None:
    """A run over STREUSLE's development set: two routers that follow the form of a word, and a label of it."""
    examples = read(str(CORPUS)).examples
    words = [(i, w) for i, e in enumerate(examples) for w in e.words]
    document = np.array([i for i, _ in words])
    form = np.unique([w.labels["form"].lower() for _, w in words], return_inverse=True)[1]
    rng, n = np.random.default_rng(seed), len(words)
    writer = RunWriter.create(path, synthetic._head((0, 1), 8, 2, f"follows {follows}"))
    names = [e.document for e in examples]
    writer.add("sequences", {"sequence": np.arange(len(names)), "source": "streusle", "document": names, "stack": "decoder"})
    position = np.arange(n) - np.searchsorted(document, document)
    tokens = {"token": np.arange(n), "sequence": document, "position": position, "unit": "text", "vocab_id": form}
    writer.add("tokens", tokens | {"special": False, "generated": False})
    codes: dict[str, np.ndarray] = {}
    for kind in ("upos", "supersense"):
        label = [w.labels.get(kind) for _, w in words]
        known = [i for i, x in enumerate(label) if x]
        rows = {"token": known, "kind": kind, "label": [label[i] for i in known]}
        writer.add("token_labels", rows)
        codes[kind] = np.unique([x or "" for x in label], return_inverse=True)[1]
    writer.add("forwards", {"forward": 0, "phase": "prefill", "step": 0, "batch_size": 1, "tokens": n})
    for router in range(2):
        z = rng.gumbel(size=(n, 8)) + 2 * rng.normal(size=(form.max() + 1, 8))[form]
        z += 1.0 * rng.normal(size=(len(examples), 8))[document]
        if follows:
            z += 2 * rng.normal(size=(codes[follows].max() + 1, 8))[codes[follows]]
        synthetic._write_routes(writer, router, z, 2, {"forward": 0, "token": 0}, None)
    writer.close({"status": "complete"}, {"batches": 1})


@pytest.mark.parametrize("follows", [None, "upos", "supersense"])
def test_what_routing_follows(tmp_path: Path, follows: str | None) -> None:
    write(tmp_path / "x.duckdb", 3, follows)
    answer = analyses.run("syntax", tmp_path / "x.duckdb")
    plain = answer.figures("I(expert; label) (bits)", estimator="corrected")
    assert (plain["ci_low"] > 0.05).all()
    assert (plain["q"] < 1e-5).all()
    given = answer.figures(TOKEN, estimator="corrected").groupby("subset")
    found = {kind: (rows["q"] <= 0.05).all() and (rows["ci_low"] > 0).all() for kind, rows in given}
    if follows is None:
        assert (answer.figures(TOKEN, estimator="corrected")["q"] > 0.05).all()
    else:
        assert found[follows]
    if follows == "supersense":
        beyond = answer.figures("I(expert; label | token and upos) (bits)", estimator="corrected", subset="supersense")
        assert (beyond["q"] <= 0.05).all()
    if follows == "upos":
        beyond = answer.figures("I(expert; label | token and upos) (bits)", estimator="corrected", subset="supersense")
        assert (beyond["q"] > 0.05).all()
