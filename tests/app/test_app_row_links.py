"""Rows of an answer's tables open what they name: a token, an expert, the experts of a layer."""

import pandas as pd
import pytest
from pages import part
from recounted import Truth

TRUTH = Truth()
pytestmark = pytest.mark.usefixtures("recounted_shown")
HERE = next(t for t in TRUTH.tokens if t.sequence == 3 and t.position == 4)
NONE = float("nan")
ROWS = {
    "an expert": ({"router": 2, "expert": 1, "value": 0.5},
                  ("experts", {"run": 0, "layer": "decoder 1", "show": None, "expert": 1})),
    "a layer": ({"router": 0, "expert": NONE}, ("experts", {"run": 0, "layer": "encoder 0", "show": "all"})),
    "a place": ({"router": 2, "expert": 1, "sequence": 3, "position": 4},
                ("tokens", {"run": 0, "token": HERE.token, "sequence": 3})),
    "a token": ({"token": HERE.token}, ("tokens", {"run": 0, "token": HERE.token, "sequence": 3})),
    "a token that is not there": ({"token": 10**6}, None),
    "a router of another run": ({"router": 5, "expert": 1}, None),
    "nothing": ({"name": "x", "value": 1.0}, None),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_a_row_opens_what_it_names(what: str) -> None:
    row, expected = ROWS[what]
    assert part("parts.row_links").opened(0, pd.DataFrame([row]).iloc[0].to_dict()) == expected
