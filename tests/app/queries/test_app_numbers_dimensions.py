"""What the Dimensionality page pairs and says: literal figures in, literal rows and cards out."""

from typing import Any

import pandas as pd
import pytest
from pages import part, rows

from moescope.analyses._shared.answer import Answer
from moescope.analyses._shared.verdicts.columns import COLUMNS


def figure(name: str, value: float, **more: Any) -> dict[str, Any]:
    """One row of figures."""
    return (
        dict.fromkeys(COLUMNS)
        | {"name": name, "estimator": "unbiased", "value": value, "stack": "decoder", "subset": ""}
        | more
    )


def answer() -> Answer:
    ratio = "participation_ratio"
    found = [
        *(
            figure(ratio, v + e, estimator=form, layer=layer, router=layer, expert=e, subset="expert inputs", n=90, units=6)
            for form, v in (("unbiased", 10.0), ("naive", 7.0)) for layer in (1, 2) for e in (None, 1, 2) if e is not None
        ),
        *(
            figure(ratio, v, estimator=form, subset=subset, chance=21.0, null_mean=15.55)
            for subset, forms in (("routing matrix", (5.26, 4.0)), ("routing matrix, control run 3", (9.0, 8.0)))
            for form, v in zip(("unbiased", "naive"), forms)
        ),
        figure("hierarchy_index", 1.257, subset="states, late over early", ci_low=1.1, ci_high=1.404),
        figure("hierarchy_index", 0.9, subset="routing, late over early, control run 3"),
        figure("slow_over_fast", 2.0, subset="H over L", ci_low=1.5, ci_high=2.5),
    ]  # fmt: skip
    return Answer(
        "dimensionality", "Dimensionality", "", 0, {"figures": pd.DataFrame(found, columns=COLUMNS)}, {"figures": "from runs"}
    )


def test_ratios_stand_beside_the_naive_ones() -> None:
    """Each with that of its own router, expert and states."""
    frame = part("parts.dimension_panels").ratios(answer())
    assert rows(frame[frame["expert"].notna()], "layer", "expert", "dimensions", "naive") == [
        (1, 1, 11.0, 8.0), (1, 2, 12.0, 9.0), (2, 1, 11.0, 8.0), (2, 2, 12.0, 9.0),
    ]  # fmt: skip
    assert rows(frame[frame["layer"].isna()], "subset", "dimensions", "naive") == [
        ("routing matrix", 5.26, 4.0), ("routing matrix, control run 3", 9.0, 8.0),
    ]  # fmt: skip


def test_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    panels, shown = part("parts.dimension_panels"), []
    monkeypatch.setattr(panels.panels, "cards", shown.extend)
    panels.cards(answer(), panels.ratios(answer()))
    words = "dimensions of 21 that it could use; layers shuffled apart: 15.6"
    assert shown == [
        ("Routing of the decoder", "5.3", words, ""), ("Routing of the decoder, control", "9.0", words, ""),
        ("States, late ÷ early", "1.26", "[1.10, 1.40]; 1 is flat", ""),
        ("Routing, late ÷ early, control", "0.90", "1 is flat", ""),
        ("H ÷ L", "2.00", "[1.50, 2.50]; 1: the slow as many as the fast", ""),
    ]  # fmt: skip
