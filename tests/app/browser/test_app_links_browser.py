"""Marks and points of charts open what they name, in a real browser."""

from collections.abc import Callable

import pytest
from browser import IN_A_BROWSER, Eyes

pytestmark = IN_A_BROWSER


def test_mark_of_a_chart_opens_its_layer(looking: Callable[..., Eyes]) -> None:
    """A point of a line, in the same tab; the tip says what it opens."""
    eyes = looking()
    eyes.go("load?run=0")
    spots = eyes.page.locator("svg.marks [opacity='0']")
    spots.nth(1).scroll_into_view_if_needed()
    box = spots.nth(1).bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    eyes.page.mouse.move(*at)
    tip = eyes.page.locator("#vg-tooltip-element").filter(has_text="opens layer")
    tip.wait_for()
    layer = tip.inner_text().rpartition("opens layer ")[2].strip()
    eyes.page.mouse.click(*at)
    eyes.page.wait_for_url("**/experts?**")
    eyes.rest()
    assert f"layer=layer+{layer}" in eyes.page.url, eyes.page.url
    assert len(eyes.page.context.pages) == 1


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.sampled(1)
def test_point_of_the_map_opens_its_token(keys: bool, looking: Callable[..., Eyes]) -> None:
    """By a click, and by the keys with Enter."""
    eyes = looking()
    eyes.go("meaning?question=senses&run=0")
    plot, tip = eyes.page.locator(".scatter .plot"), eyes.page.locator(".scatter .tip.shown")
    plot.scroll_into_view_if_needed()
    plot.focus()
    eyes.page.keyboard.press("ArrowRight")
    tip.filter(has_text="click or Enter: its route").wait_for()
    if keys:
        eyes.page.keyboard.press("Enter")
    else:
        seen = eyes.page.locator(".scatter .ring").bounding_box()
        eyes.page.mouse.click(seen["x"] + seen["width"] / 2, seen["y"] + seen["height"] / 2)
    eyes.page.wait_for_url("**/tokens?**")
    eyes.page.locator(".ms-route").wait_for()
    assert "token=" in eyes.page.url
