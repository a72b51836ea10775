"""Tokens page: text coloured by a label of its tokens, and tokens with one label alone."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from pages import offered, opened, part
from recounted import Truth

from moescope.charts import CATEGORY, OTHER

TRUTH = Truth()


@pytest.mark.usefixtures("recounted_shown")
def test_kinds_and_labels_of_tokens() -> None:
    routes = part("queries.token_routes")
    assert routes.kinds(0) == {"upos": ["ADP", "DET", "NOUN", "VERB"]}
    mine = [t for t in TRUTH.tokens if t.run == 0 and t.sequence == TRUTH.tokens[0].sequence]
    frame = pd.DataFrame({"token": [t.token for t in mine]})
    assert list(routes.labelled(frame, "upos")) == [t.upos for t in mine]
    assert list(routes.labelled(frame, "role")) == [None] * len(mine)


def test_colours_by_label() -> None:
    """In the order of their names, so that a role has one colour wherever it stands."""
    paint = part("components.colored_tokens").paint_labels(["user", None, "assistant", "user"])
    assert paint["colour"] == [CATEGORY[1], "transparent", CATEGORY[0], CATEGORY[1]]
    assert paint["group"] == ["user", "none", "assistant", "user"]
    assert [(row["expert"], row["n"]) for row in paint["legend"]] == [("assistant", 1), ("user", 2), ("none", 1)]
    many = part("components.colored_tokens").paint_labels([str(n) for n in range(20)])
    assert Counter(many["colour"])[OTHER] == 20 - len(CATEGORY) + 1


def test_one_label_alone() -> None:
    colored = part("components.colored_tokens")
    whole = colored.paint_labels(["user", "assistant", "user"])
    some = colored.only(whole, [True, False, False])
    assert some["colour"] == [CATEGORY[1], "transparent", "transparent"]
    assert some["group"] == ["user", "left out", "left out"]
    assert [(row["expert"], row["n"]) for row in some["legend"]] == [("user", 1)]


def test_on_the_page(recounted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(recounted_store, "tokens", monkeypatch, run="0", by="label", marked="upos", only="NOUN")
    assert offered(page, "Labels") == ["upos"]
    assert offered(page, "Only tokens") == ["all of them", "ADP", "DET", "NOUN", "VERB"]
    assert "label of the token" in offered(page, "Colour")
