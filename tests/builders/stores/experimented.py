"""Figures as experiments with a live model leave them, made up: for stores without a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moescope.analyses._shared.answer import figures, gather
from moescope.analyses._shared.experiments import rows_of
from moescope.store.write.change import change_store

LAYERS = {0: 0, 1: 2, 2: 3}  # router: layer, as `synthetic` makes them


def add(path: Path, run: int = 0, experts: int = 4, token: int = 0) -> None:
    """All experiments' figures of one run; `token` is a key of the run."""
    made = {"regret": _regret(token), "writes": _writes(experts, token), "tracing": _tracing(experts), "steer": _steer(),
            "lookahead": _lookahead()}  # fmt: skip
    rows = [rows_of(name, run, gather(list(frames), family=()), more) for name, (frames, more) in made.items()]

    def change(con: Any) -> None:
        con.register("made_up", pd.concat(rows, ignore_index=True))
        con.execute("insert into measures by name from made_up")
        con.unregister("made_up")

    change_store(path, change)


def _some(where: dict[str, Any], name: str, value: Any = 1.0, estimator: str = "definition") -> pd.DataFrame:
    value = np.atleast_1d(value).astype(float)
    null = np.random.default_rng(0).normal(size=(99, len(value)))
    draws = value + null[:50] / 10
    return figures(where, name, value, source="made up", estimator=estimator, chance=0.0, draws=draws, null=null,
                   null_name="made up", n=100, units=20)  # fmt: skip


def _where(router: int) -> dict[str, Any]:
    return {"stack": "decoder", "router": router, "layer": LAYERS[router]}


def _regret(token: int) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    frames = [
        _some(_where(r) | {"subset": s}, "regret (nats)", 0.1 + r) for r in LAYERS for s in ("", "likelihood quarter 1 of 4")
    ]
    frames += [_some(_where(0) | {"subset": f"token {token}"}, "regret of a token (nats)", 2.0)]
    said = {"token": token, "executed": [0, 1], "best": [1, 2], "log_p": -1.0, "margin": 0.1, "better": 0.5}
    return frames, [{} for _ in frames[:-1]] + [said]


def _writes(experts: int, token: int) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    peak, direct = "peak of the mean update (z)", "direct attribution to the next token (logits)"
    entry = {"promotes": ["a", "b", "c"], "suppresses": ["d", "e", "f"]}
    frames, more = [], []
    for router in LAYERS:
        at = _where(router) | {"expert": np.arange(experts)}
        frames += [
            _some(at, peak, 3.0 + np.arange(experts)),
            _some(at, direct, np.arange(experts) / 4),
            _some(_where(router), direct),
        ]
        more += [entry] * experts + [{"tokens": [[1.0, token]]}] * experts + [{}]
    return frames, more


def _tracing(experts: int) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    frames = []
    for router in LAYERS:
        at = _where(router) | {"expert": np.arange(experts)}
        frames.append(_some(_where(router), "rescue by the layer (logits)", 1.0 + router))
        frames.append(_some(at, "rescue by an expert's update (logits)", np.arange(experts) / 4))
        frames.append(_some(at, "specificity of an expert's update (logits)", np.arange(experts) / 8))
    return frames, [{"cases": 20, "of": 24}] * sum(map(len, frames))


def _steer() -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    subsets = ("domain=code", "domain=law", "domain=code less law")
    names = [f"{what}: {who} of the first" for what in ("deactivated", "activated") for who in ("experts", "control")]
    frames = [_some({"subset": s}, "change of loss (nats per token)", 0.2, name) for name in names for s in subsets]
    return frames, [{"experts": {"layers.0.mlp.gate": [5]}} for _ in frames]


def _lookahead() -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    names = ("cosine", "Spearman", "most loaded eighth")
    frames = [_some(_where(r), "load predicted from the layer before", 0.5, name) for r in (1, 2) for name in names]
    return frames, [{} for _ in frames]
