"""The README's generated blocks are what the code says today."""

import pytest

from docs.update_readme import LIVE, README, block, filled

SLOW = {"families", "systems"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else []) for n in LIVE])
def test_block_is_current(name: str) -> None:
    """Run `make docs` when this fails."""
    if block(README.read_text("utf-8"), name) in (None, ""):
        pytest.skip("the README has no such block yet")
    assert block(README.read_text("utf-8"), name) == LIVE[name](), "run: make docs"


def test_filling_is_idempotent_and_leaves_the_rest() -> None:
    """Only what stands between the markers changes."""
    text = "before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter <!-- b:begin --><!-- b:end -->\n"
    once = filled(text, "a", "| new \\1 |")
    assert once == "before\n<!-- a:begin -->\n| new \\1 |\n<!-- a:end -->\nafter <!-- b:begin --><!-- b:end -->\n"
    assert filled(once, "a", "| new \\1 |") == once
    assert block(once, "a") == "| new \\1 |"
    assert block(once, "c") is None
    assert filled(once, "c", "x") == once
