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


def test_the_sidebar_folds_in_narrow_windows(looking: Callable[..., Eyes]) -> None:
    """At 900 px it is its icons, and opens where it is pointed at or focused; on phones it is a drawer; nothing is cut off."""
    eyes = looking()
    eyes.go("tokens?run=0")
    bar, head = eyes.page.locator("[data-testid=stSidebar]"), eyes.page.locator(".ms-head h1")
    share = bar.get_by_role("button", name="Share this view")
    eyes.page.set_viewport_size({"width": 900, "height": 900})
    head.hover()
    assert (bar.bounding_box()["width"] < 80, share.is_visible()) == (True, False)
    assert head.bounding_box()["x"] < 140
    bar.hover(position={"x": 20, "y": 200})
    share.wait_for()
    head.hover(position={"x": 400, "y": 10})
    share.wait_for(state="hidden")
    bar.get_by_role("link", name="Experts").focus()
    share.wait_for()
    eyes.page.set_viewport_size({"width": 390, "height": 800})
    eyes.go("tokens?run=0")
    tools = eyes.page.locator("[data-testid=stHeader]").bounding_box()
    assert head.bounding_box()["y"] >= tools["y"] + tools["height"] - 8
    assert eyes.page.evaluate("document.documentElement.scrollWidth") <= 390
    eyes.page.set_viewport_size({"width": 1440, "height": 1000})
