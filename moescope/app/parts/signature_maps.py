"""Maps of routing signatures: tokens placed by the experts they take through all layers."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from moescope.app.queries import sampling, store_access

SAMPLE = """
with few as (
  select t.token from tokens t join sequences s using (sequence)
  where t.run = ? and s.stack is not distinct from ? and not t.special{near} order by hash(t.token), t.token limit ?)
select a.token, a.router, a.expert, sum(a.weight) as weight from assignments a join few using (token)
where a.run = ? and not a.dropped group by all"""
WORDS = """
select t.token, t.sequence, t.position, t.unit, t.text, t.document, t.y, t.x,
       (select map_from_entries(list((kind, label))) from (
          select kind, min(label) as label from labels l where l.token = t.token and label is not null group by kind)) as labels
from token_text t where t.token in (select unnest(?))"""
MOST = 1200  # tokens on the map
AMONG = 20_000  # tokens from which they are drawn, in large runs


def sample_sql(run: dict[str, Any]) -> tuple[str, float]:
    """The query for a sample of tokens with their routes, and the share of the run that it is drawn from."""
    near, kept = sampling.filter_sql(run, AMONG, 1, "t.")
    return SAMPLE.format(near=near), kept


@st.cache_data(max_entries=12, show_spinner=False)
def place(where: str, state: tuple[Any, ...], sql: str, run: int, stack: str, how: str, seed: int) -> pd.DataFrame:
    """A sample of tokens with their place (x, y) and words; `how` is "PCA" or "UMAP"."""
    frame = store_access.frame(sql, run, stack, MOST, run)
    if frame["token"].nunique() < 30:
        return pd.DataFrame()
    tokens, row = np.unique(frame["token"], return_inverse=True)
    _, column = np.unique(frame["router"].astype(np.int64) * 4096 + frame["expert"], return_inverse=True)
    matrix = np.zeros((len(tokens), column.max() + 1), dtype=np.float32)
    matrix[row, column] = np.nan_to_num(frame["weight"].to_numpy(float), nan=1.0)
    xy = _umap(matrix, seed) if how == "UMAP" else _pca(matrix)
    placed = pd.DataFrame({"token": tokens, "across": xy[:, 0], "up": xy[:, 1]})
    words = store_access.held().cursor().execute(WORDS, [tokens.tolist()]).df().drop_duplicates("token")
    return placed.merge(store_access.spelling(run).column(words), on="token")


def _pca(matrix: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import svds

    centred = matrix - matrix.mean(axis=0)
    if min(centred.shape) < 4:
        centred = np.pad(centred, ((0, 0), (0, 4)))
    start = np.random.default_rng(0).standard_normal(min(centred.shape))
    u, s, _ = svds(centred, k=2, v0=start.astype(centred.dtype))  # the two largest alone: a twentieth of the time of all
    return np.asarray((u * s)[:, ::-1])


def _umap(matrix: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    return np.asarray(UMAP(n_neighbors=20, min_dist=0.1, metric="cosine", random_state=seed).fit_transform(matrix))


def few_names(values: pd.Series, most: int = 7) -> pd.Series:
    """The commonest names; the others become "other"."""
    known = set(values.value_counts().head(most).index)
    return values.where(values.isin(known), "other").fillna("none")
