"""What a run holds, as one digest: equal digests, equal answers of every question about that run.

Of every table that a question can read, the number of its rows that are of the run and the sum of their hashes: the order of
rows does not matter, nor what other runs hold, nor where the file lies. The whole run is read once, ten million decisions in a
second. Left out: what is computed from the rest (kept sums), figures that an analysis saved, and what ablations found.
"""

import hashlib
import json
from typing import Any

from .reader import Store

_OWN = ("routers", "sequences", "tokens", "forwards", "conditions", "pools", "logits", "decisions", "assignments", "decided")
_SHOWN = "r.run, r.name, r.dataset, r.status, r.capture, r.overrides, r.warnings, r.progress, m.name as traced, m.family"
_OF_RUN = {
    "runs": f"select {_SHOWN}, m.weights_sha256 from runs r left join models m on m.model = r.model where run = {{run}}",
    "experts": "from experts where router in (select router from routers where run = {run})",
    "sequence_labels": "from sequence_labels where sequence in (select sequence from sequences where run = {run})",
    "token_labels": "from token_labels where token in (select token from tokens where run = {run})",
    "vocab": "from vocab where model = (select model from runs where run = {run}) and vocab_id in "
    "(select vocab_id from tokens where run = {run})",
    "measures": "from measures where run = {run} and extra->>'analysis' is null",
    **{table: f"from {table} where run = {{run}}" for table in _OWN},
}
KNOWN = 64  # digests that are remembered
ABLATIONS = {"ablations": "from ablations where run = {run}"}


_known: dict[tuple[Any, ...], str] = {}  # of stores by their state


def digest(store: Store, run: int, ablations: bool = False) -> str:
    """Of one run as `store` shows it; with `ablations` also of what they found. Remembered while the store is as it was."""
    if store.opened is None:
        return _digest(store, run, ablations)
    key = (store.path.resolve(), store.opened, run, ablations)
    if key not in _known:
        while len(_known) >= KNOWN:
            _known.pop(next(iter(_known)), None)
        _known[key] = _digest(store, run, ablations)
    return _known[key]


def _digest(store: Store, run: int, ablations: bool) -> str:
    queries = _OF_RUN | (ABLATIONS if ablations else {})
    counts = [_counted(store, table, sql.format(run=run)) for table, sql in queries.items()]
    return hashlib.sha256(json.dumps(counts).encode()).hexdigest()


def _counted(store: Store, table: str, sql: str) -> tuple[str, int, str]:
    rows, total = store.rows(f"select count(*), sum(hash(r)) from ({sql}) r")[0]
    return table, rows, str(total)
