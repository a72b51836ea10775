"""Videos, and pictures with text in one sequence, on the Tokens page: every token has a cell of its own."""

from pathlib import Path
from typing import Any

import pytest
from diffusion_systems import cogvideox, hidream
from pages import nothing, opened, part

import moescope

SQUARE = [(y, x) for y in range(4) for x in range(4)]
VIDEO = [(0, 0), (0, 1), (1, 0), (1, 1), (3, 0), (3, 1), (4, 0), (4, 1)]  # two frames, a row between them
PICTURES = {
    "text before two frames": (cogvideox, 0, [(6, 0), (6, 1), (7, 0), (7, 1), (8, 0), *VIDEO], (9, 2)),
    "text behind patches": (hidream, 1, [*SQUARE, *((5 + n // 4, n % 4) for n in range(9))], (8, 4)),
    "the same where no router sees text": (hidream, 0, [*SQUARE, *((5 + n // 4, n % 4) for n in range(9))], (8, 4)),
}


@pytest.mark.parametrize("form", PICTURES)
def test_every_token_has_a_cell(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, router, cells, size = PICTURES[form]
    system: Any = make()
    with moescope.Tracer(system.model, tmp_path / "a.duckdb", inputs=system.inputs):
        system()
    assert nothing(opened(tmp_path / "a.duckdb", "tokens", monkeypatch)) == []
    routes, sequence = part("queries.token_routes"), 1
    (row,) = [row for row in routes.sequences(0, "vision", None, "") if row["sequence"] == sequence]
    (layer,) = [layer for layer in part("parts.pickers").layers(0) if layer.router == router]
    frame, _ = routes.tokens(sequence, layer)
    data = part("components.colored_tokens").data_of(frame, {}, size=(row["height"], row["width"]))
    assert (data["height"], data["width"]) == size
    assert list(zip(data["y"], data["x"])) == cells
