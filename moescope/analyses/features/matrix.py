"""A user's features of tokens, from a file: npz (dense, or sparse as scipy saves it) or safetensors.

`features` (rows, F), or of scipy.sparse.save_npz `data`, `indices`, `indptr`, `shape` (csr); `token` (rows,): keys of the
store's table `tokens`, each once; optional `names` (F,), and `layer`: whose router's input the features are of.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ...errors import AnalysisError
from ...statistics import Array

TAKES = "`features` (rows, F) or the parts of a csr matrix, and `token` (rows,), keys of the store's table tokens"


@dataclass(frozen=True)
class Features:
    """`matrix` (rows, F) csr, `token` (rows,), `names` (F,), `layer` of the router, or None."""

    matrix: Any
    token: Array
    names: list[str]
    layer: int | None


def read(path: str) -> Features:
    """AnalysisError in one sentence where the file is not there, or is no such matrix."""
    file = Path(path)
    if not file.is_file():
        raise AnalysisError(f"there is no file {path} of features; it holds {TAKES}")
    try:
        parts = _safetensors(file) if file.suffix == ".safetensors" else _npz(file)
        matrix = _matrix(parts).astype(np.float64)
        token = np.asarray(parts["token"]).astype(np.int64).ravel()
        names = [str(n) for n in parts["names"]] if "names" in parts else [str(n) for n in range(matrix.shape[1])]
        layer = int(np.asarray(parts["layer"]).ravel()[0]) if "layer" in parts else None
    except Exception as error:  # whatever a file that is none makes of these libraries
        raise AnalysisError(f"{path} is no file of features ({type(error).__name__}: {error}); it holds {TAKES}") from error
    if matrix.shape[0] != len(token) or len(np.unique(token)) != len(token) or len(names) != matrix.shape[1]:
        raise AnalysisError(
            f"{path} has {matrix.shape[0]} rows and {matrix.shape[1]} features, but {len(np.unique(token))} tokens of "
            f"{len(token)} and {len(names)} names: give one token per row, each once, and one name per feature"
        )
    if not np.isfinite(matrix.data).all():
        raise AnalysisError(f"{path} holds NaN or infinite features; leave those rows out")
    return Features(matrix, token, names, layer)


def _npz(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _safetensors(file: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(file))


def _matrix(parts: dict[str, Any]) -> Any:
    if "features" in parts:
        dense = np.asarray(parts["features"])
        if dense.ndim != 2:
            raise ValueError(f"`features` has {dense.ndim} axes")
        return sparse.csr_matrix(dense)
    return sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"]))
