"""Where things stand in a real browser: a click's answer is in sight, stays there, and keys turn the pages of experts."""

from collections.abc import Callable

from browser import IN_A_BROWSER, Eyes

pytestmark = IN_A_BROWSER


def seen(eyes: Eyes, what: str) -> bool:
    """Whether the top of it lies within the window."""
    box, size = eyes.page.locator(what).first.bounding_box(), eyes.page.viewport_size
    return 0 <= box["y"] < size["height"] - 40 and box["x"] < size["width"]


def test_the_route_is_in_sight_where_the_token_is(looking: Callable[..., Eyes]) -> None:
    """In wide windows, in narrow ones and on phones, without scrolling."""
    eyes = looking()
    eyes.go("tokens?run=0&layer=layer+2")
    for place, size in enumerate([(1400, 900), (900, 800), (400, 800)]):
        eyes.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        cell = eyes.page.locator(".tokens .t").nth(20 + place)
        cell.click()
        eyes.page.wait_for_url(f"**token={cell.get_attribute('data-token')}**")
        eyes.rest()
        assert (seen(eyes, ".ms-route"), seen(eyes, ".t.sel")) == (True, True), size
    eyes.page.set_viewport_size({"width": 1440, "height": 1000})


def test_keys_turn_to_the_next_expert_and_cards_open_one(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("experts?run=0&layer=layer+2&expert=3")
    eyes.page.keyboard.press("n")
    eyes.page.wait_for_url("**expert=4**")
    eyes.rest()
    eyes.page.keyboard.press("p")
    eyes.page.wait_for_url("**expert=3**")
    eyes.rest()
    eyes.page.get_by_text("All of the layer, as cards").click()
    eyes.page.locator(".ms-expert").nth(5).click()
    eyes.page.wait_for_url("**expert=5**")
    eyes.rest()
    assert "Expert 5 of layer 2" in eyes.page.locator(".ms-reading").first.inner_text()
