"""Streams that hold a picture's patches and more: text behind them, padding, or nothing that says where a row lies."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_systems import System, cogvideox, hidream, nucleus

import moescope

SIDE = [(y, x) for y in range(4) for x in range(4)]


def traced(system: System, path: Path, steps: int = 1) -> Any:
    """A store of so many forwards that denoise the same pictures."""
    with moescope.Tracer(system.model, path, inputs=system.inputs) as tracer, tracer.denoising():
        for _ in range(steps):
            system()
    return moescope.open(path)


def rows_of(store: Any, router: str) -> list[tuple[Any, ...]]:
    """(sequence, position, unit, y, x, special) of a router's tokens, in order."""
    return list(
        store.rows(
            "select distinct sequence, position, tokens.unit, y, x, special from decisions join tokens using (token) "
            "join routers using (router) where routers.name like ? order by 1, 2",
            [f"{router}%"],
        )
    )


def test_text_stands_behind_the_patches(tmp_path: Path) -> None:
    """HiDream: a patch has the same y and x in both kinds of blocks, and the nine text tokens are no patches."""
    store = traced(hidream(), tmp_path / "run.duckdb")
    double, single = rows_of(store, "double"), rows_of(store, "single")
    assert [row[2:] for row in double] == [("patch", y, x, False) for y, x in SIDE] * 2
    assert [row[2:] for row in single] == (
        [("patch", y, x, False) for y, x in SIDE] + [("text", None, None, False)] * 9
    ) * 2  # fmt: skip
    assert len({row[0] for row in single}) == 2
    assert store.rows("select distinct height, width from sequences") == [(4, 4)]


def test_padding_stands_behind_the_patches(tmp_path: Path) -> None:
    """HiDream pads pictures that are no squares to 16 places: 4 × 2 patches, then rows that nothing names."""
    system = hidream()
    system.inputs["hidden_states"] = torch.randn(2, 4, 8, 4)
    store = traced(system, tmp_path / "run.duckdb")
    there = [("patch", y, x, False) for y in range(4) for x in range(2)]
    assert [row[2:] for row in rows_of(store, "double")] == (there + [("row", None, None, False)] * 8) * 2
    assert [row[2:] for row in rows_of(store, "single")] == (there + [("row", None, None, False)] * 17) * 2


@pytest.mark.parametrize(("make", "places"), [(nucleus, 16), (cogvideox, 13)])
def test_rows_belong_to_their_sample(make: Any, places: int, tmp_path: Path) -> None:
    """Packed latents and videos: two samples, each with its rows and its timestep; a row is one token in all steps."""
    store = traced(make(), tmp_path / "run.duckdb", steps=3)
    assert store.rows("select sequence, count(*), any_value(unit) from tokens group by 1 order by 1") == [
        (0, places, "row"), (1, places, "row"),
    ]  # fmt: skip
    times = store.rows("select forward, sequence, value from conditions where kind = 'timestep' order by 1, 2")
    assert [(f, s) for f, s, _ in times] == [(f, s) for f in range(3) for s in range(2)]
    assert store.rows("select count(*) from forwards") == [(3,)]
