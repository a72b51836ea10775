"""Stores whose forwards were told something: documents of a few tokens go through the same forwards."""

from pathlib import Path
from typing import Any

import handmade
import numpy as np

from moescope.store import RunWriter

Rows = list[dict[str, Any]]


def written(
    path: Path,
    routers: Rows,
    chosen: dict[int, np.ndarray],
    conditions: Rows,
    *,
    tokens: int | np.ndarray = 1,
    units: tuple[str, ...] = ("patch",),
    weights: dict[int, np.ndarray] | None = None,
    entropy: dict[int, np.ndarray] | None = None,
    labels: dict[str, np.ndarray] | None = None,
    text: bool = False,
    side: tuple[int, int] | None = None,
    name: str = "told",
) -> Path:
    """`chosen[router]` (forwards, documents × tokens, k): experts, -1 where none ran; a document is a sequence of `tokens`
    (or as many as are said for each).

    Tokens have the `units` in turn, the vocabulary id of their position (with `text`), or places in an image of `side`;
    `labels[kind]` (documents × tokens,) are labels of tokens; `conditions` are rows of that table, as columns.
    """
    forwards, every = next(iter(chosen.values())).shape[:2]
    lengths = np.full(every // tokens, tokens) if isinstance(tokens, int) else np.asarray(tokens)
    documents = len(lengths)
    run = {"name": name, "started": "2026-01-01 00:00:00", "dataset": "made"}
    common = {"stack": "decoder", "contract": "triple", "kind": "token_choice", "block_type": "ffn", "decides_on": "token"}
    listed = [{**common, "name": f"routers.{r['router']}", "layer": r["router"], **r} for r in routers]
    experts = [{"router": r["router"], "expert": e, "role": "routed"} for r in routers for e in range(r["experts"])]
    head = {"run": run, "model": {"name": name, "weights_sha256": "0", "config": {}}, "routers": listed, "experts": experts}
    writer = RunWriter.create(path, head)
    place, sequence = np.arange(every), np.repeat(np.arange(documents), lengths)
    position = place - np.repeat(np.cumsum(lengths) - lengths, lengths)
    size = {"height": side[0], "width": side[1]} if side else {}
    number = np.arange(documents)
    about = {
        "document": [f"d{i}" for i in number],
        "stack": "decoder",
        "source": "made",
        "source_row": number,
        "tokens": lengths,
    }
    writer.add("sequences", {"sequence": number, **about, **size})
    rows: dict[str, Any] = {"token": place, "sequence": sequence, "position": position, "special": False,
                            "generated": False, "unit": [units[i % len(units)] for i in place]}  # fmt: skip
    if text:
        rows["vocab_id"] = position
        writer.add("vocab", {"vocab_id": np.arange(lengths.max()), "text": [f"w{i}" for i in range(lengths.max())]})
    if side:
        rows |= {"y": position // side[1], "x": position % side[1]}
    writer.add("tokens", rows)
    for kind, values in (labels or {}).items():
        writer.add("token_labels", {"token": place, "kind": kind, "label": list(values)})
    passes = np.arange(forwards)
    writer.add("forwards", {"forward": passes, "phase": "forward", "step": passes, "batch_size": documents, "tokens": every})
    for row in conditions:
        writer.add("conditions", row)
    for router, table in chosen.items():
        gates = None if weights is None else weights.get(router)
        writer.add(f"routes_{table.shape[2]}", _routes(router, table, gates, None if entropy is None else entropy[router]))
    for key, count in (("sequence", documents), ("token", every), ("forward", forwards)):
        writer.take(key, count)
    writer.close(handmade.FINAL, {})
    return path


def _routes(router: int, table: np.ndarray, weights: np.ndarray | None, entropy: np.ndarray | None) -> dict[str, Any]:
    import pyarrow as pa

    forwards, every, k = table.shape
    columns: dict[str, Any] = {"forward": np.repeat(np.arange(forwards), every), "router": router, "iteration": 0}
    columns |= {"token": np.tile(np.arange(every), forwards), "dropped": 0, "slots": sum(r << (4 * r) for r in range(k))}
    if entropy is not None:
        columns["entropy"] = entropy.ravel().astype("f4")
    for rank in range(k):
        expert = table[:, :, rank].ravel()
        gate = np.full(len(expert), 1 / k) if weights is None else weights[:, :, rank].ravel()
        columns[f"e{rank}"] = pa.array([None if e < 0 else int(e) for e in expert], pa.uint16())
        columns[f"w{rank}"] = pa.array([None if e < 0 else float(w) for e, w in zip(expert, gate)], pa.float32())
    return columns


def timesteps(*values: float) -> Rows:
    """One timestep per forward, for all sequences."""
    return [{"forward": np.arange(len(values)), "kind": "timestep", "value": np.array(values)}]


def classes(kind: str, names: list[str], forwards: int) -> Rows:
    """A word per sequence, the same in every forward."""
    n = len(names)
    return [{"forward": np.repeat(np.arange(forwards), n), "sequence": np.tile(np.arange(n), forwards), "kind": kind,
             "label": names * forwards}]  # fmt: skip
