"""Probabilities of all experts, from stored router logits, where the score makes probabilities of them."""

from typing import Any

import numpy as np
import pandas as pd

from ....statistics import Array
from ....store.ranking import raw_scores
from ..scope import Scope

SCORES = ("softmax", "sigmoid", "probabilities")
BATCH = 16384


def probabilities(logits: Any, score: str) -> Any:
    """(tokens, E), rows of sum 1, from router logits."""
    p = raw_scores(logits, score)
    return p / p.sum(1, keepdims=True)


def sums(here: Scope, row: pd.Series, places: str, values: list[str], units: int) -> Array:
    """(units, values, E + 1): sums of the router's probabilities, and tokens; `places` gives rows (token, unit, label)."""
    experts = int(row["experts"])
    total = np.zeros((units * len(values), experts + 1))
    sql = f"""with places as ({places})
select logits, unit, label from logits join places using (token) where run = {here.run} and router = {row["router"]}"""
    for batch in here.store.sql(sql).to_arrow_reader(BATCH):
        p = probabilities(np.stack(batch["logits"].to_numpy(zero_copy_only=False))[:, :experts], row["score"])
        label = batch["label"].to_numpy(zero_copy_only=False).astype(str)
        np.add.at(total, batch["unit"].to_numpy() * len(values) + np.searchsorted(values, label), np.c_[p, np.ones(len(p))])
    return total.reshape(units, len(values), -1)
