"""Sparse features from a user's file: the planted one is found, in every format; random ones are not; files that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from safetensors.numpy import save_file
from scipy import sparse

import moescope
from moescope import analyses
from moescope.analyses import features
from moescope.analyses.features.probe import f1
from moescope.errors import AnalysisError

FEATURES = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In layer 2 an expert takes tokens at random, which no id tells: feature 7 does."""
    path = tmp_path_factory.mktemp("features") / "run.duckdb"

    def plant(read: synthetic.Inputs, layer: int, logits: np.ndarray) -> None:
        if layer == 2:
            logits[marked(len(logits)), 4] = 8.0

    synthetic.make(path, plant, documents=16, tokens=30, layers=(0, 2))
    return path


def marked(count: int) -> np.ndarray:
    return np.random.default_rng(3).random(count) < 0.3


def matrix(count: int, planted: bool = True) -> np.ndarray:
    rng = np.random.default_rng(4)
    found = np.maximum(rng.normal(size=(count, FEATURES)), 0)
    if planted:
        found[:, 7] += 2.0 * marked(count)
    return found.astype(np.float32)


def tokens(store: Path) -> np.ndarray:
    with moescope.open(store) as opened:
        return np.array([key for (key,) in opened.rows("select token from tokens order by token")])


def write(path: Path, form: str, x: np.ndarray, token: np.ndarray) -> str:
    if form == "safetensors":
        save_file({"features": x, "token": token}, path.with_suffix(".safetensors"))
        return str(path.with_suffix(".safetensors"))
    parts: dict[str, Any] = {"features": x}
    if form == "sparse":
        csr = sparse.csr_matrix(x)
        parts = {"data": csr.data, "indices": csr.indices, "indptr": csr.indptr, "shape": np.array(csr.shape)}
    np.savez(path.with_suffix(".npz"), token=token, names=[f"f{n}" for n in range(FEATURES)], layer=2, **parts)
    return str(path.with_suffix(".npz"))


@pytest.mark.parametrize("form", ["dense", "sparse", "safetensors"])
def test_the_planted_feature_is_found_beyond_the_bigram(store: Path, tmp_path: Path, form: str) -> None:
    token = tokens(store)
    order = np.random.default_rng(0).permutation(len(token))  # rows in any order
    answer = analyses.run("features", store, path=write(tmp_path / "x", form, matrix(len(token))[order], token[order]),
                          layer=2, k=3)  # fmt: skip
    probes = answer.figures(features.F1, estimator="k=1").set_index("expert")
    assert probes["value"].idxmax() == 4
    assert probes["value"][4] > 0.6
    assert probes["q"][4] <= 0.05
    assert probes["ci_low"][4] <= probes["value"][4] <= probes["ci_high"][4]
    beyond = answer.figures(features.BEYOND, estimator="k=1").set_index("expert")
    assert beyond["q"][4] <= 0.05
    first = answer.frames["features"].query("expert == 4 and rank == 0").iloc[0]
    assert first["feature"] == ("7" if form == "safetensors" else "f7")
    assert first["difference"] > 1
    assert set(answer.frames["figures"]["layer"]) == {2}
    assert "best of expert 4 of layer 2" in answer.reading


def test_features_of_nothing_tell_nothing(store: Path, tmp_path: Path) -> None:
    token = tokens(store)
    path = write(tmp_path / "x", "dense", matrix(len(token), planted=False), token)
    answer = analyses.run("features", store, path=path, k=3)
    assert not (answer.figures(features.F1)["q"] <= 0.05).any()
    assert answer.reading.startswith("No feature tells that an expert runs")


def test_f1_by_hand() -> None:
    assert f1(np.array([[3, 1, 2], [0, 0, 0]])).tolist() == [6 / 9, 0]


def test_files_that_are_none(store: Path, tmp_path: Path) -> None:
    token = tokens(store)
    good = matrix(len(token))
    bad = {
        "there is no file": None,
        "is no file of features": {"features": good},
        "one token per row": {"features": good, "token": token[:-1]},
        "NaN or infinite": {"features": np.where(good > 2, np.nan, good), "token": token},
        "none of the file's": {"features": good, "token": token + 10_000_000},
        "nothing can be probed": {"features": good[:40], "token": token[:40]},
    }
    for words, parts in bad.items():
        path = tmp_path / "bad.npz"
        path.unlink(missing_ok=True)
        if parts is not None:
            np.savez(path, **parts)
        with pytest.raises(AnalysisError, match=words):
            analyses.run("features", store, path=str(path))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(AnalysisError, match="is no file of features"):
        analyses.run("features", store, path=str(tmp_path / "text.npz"))
    with pytest.raises(AnalysisError, match="features needs the option 'path'"):
        analyses.run("features", store)
