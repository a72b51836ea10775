"""What a token is, as a code: its id, the next id, the predicted one, its patch position, its modality; and codes shuffled."""

import numpy as np
import pandas as pd

from ...statistics import Array
from .._shared.arrays.decision_sample import Sample

PREDICTED = "predicted_id"  # kind of token label


def attributes(sample: Sample) -> dict[str, Array]:
    """Code of every token by attribute, -1 where it has none; only attributes that vary."""
    tokens = sample.tokens
    own = tokens["vocab_id"].to_numpy(float, na_value=np.nan)
    following = np.full(len(tokens), np.nan)
    following[sample.neighbours] = own[sample.neighbours + 1]
    width = tokens["x"].max() + 1 if tokens["x"].notna().any() else 1
    patch = (tokens["y"].astype(float) * float(width) + tokens["x"].astype(float)).to_numpy(float, na_value=np.nan)
    kind = pd.factorize(tokens["kind"])[0].astype(float)
    found = {
        "input id": own,
        "next id": following,
        "predicted id": _predicted(sample),
        "patch position": patch,
        "modality": kind,
    }
    coded = {name: np.where(np.isnan(values), -1, np.nan_to_num(values)).astype(np.int64) for name, values in found.items()}
    return {name: code for name, code in coded.items() if len(np.unique(code[code >= 0])) > 1}


def _predicted(sample: Sample) -> Array:
    """(tokens,) the id predicted after every token, NaN where it is not known."""
    labels = sample.scope.store.sql(
        "select token, try_cast(label as double) as id from token_labels join tokens using (token) "
        f"where kind = '{PREDICTED}' and run = {sample.scope.run}"
    ).df()
    return sample.tokens["token"].map(labels.drop_duplicates("token").set_index("token")["id"]).to_numpy(float, na_value=np.nan)


def preceding(sample: Sample) -> Array:
    """(tokens,) the row of the token before each in its sequence, -1 where there is none."""
    before = np.full(len(sample.tokens), -1)
    before[sample.neighbours + 1] = sample.neighbours
    return before


def own_code(index: Array, mine: Array, before: Array) -> Array:
    """(rows of `mine`,) the code that each token is to the token before it; -1 where that is not there."""
    place = np.where(mine, np.cumsum(mine) - 1, -1)
    last = before[mine]
    known = (last >= 0) & mine[last]
    return np.where(known, index[place[last]], -1)


def shuffled(values: Array, mine: Array, unit: Array, order: Array, before: Array | None = None) -> Array:
    """`values` of the rows `mine` after `order`, a shuffle of all rows within their documents, has moved them among these.

    With `before` (see `preceding`) no token gets the value of the token before it, which is that token itself.
    """
    home = np.argsort(unit, kind="stable")
    source = order[home]  # both by document
    target, taken = home[mine[home]], source[mine[source]]
    if before is not None:
        for i in np.flatnonzero((before[target] == taken) & (taken >= 0)):
            j = i + 1 if i + 1 < len(target) and unit[target[i + 1]] == unit[target[i]] else i - 1
            if j >= 0 and unit[target[j]] == unit[target[i]]:
                taken[[i, j]] = taken[[j, i]]
    moved = np.zeros(len(mine), dtype=values.dtype)
    place = np.cumsum(mine) - 1
    moved[target] = values[place[taken]]
    return moved[mine]
