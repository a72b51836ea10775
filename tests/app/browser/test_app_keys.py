"""The dashboard by keyboard alone, in a real browser."""

from collections.abc import Callable

from browser import IN_A_BROWSER, Eyes

pytestmark = IN_A_BROWSER


def test_keys_choose_a_token(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("tokens?run=0")
    eyes.page.locator(".tokens").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        eyes.page.keyboard.press(key)
    eyes.page.locator(".ms-route").wait_for()
    assert eyes.page.locator(".t.sel").get_attribute("data-i") == "2"


def test_heat_map_is_read_by_keys(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("load?run=0")
    eyes.page.locator(".heat .plot").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        eyes.page.keyboard.press(key)
    assert "layer 4 · expert 1" in eyes.page.locator(".heat .live").first.text_content()
    eyes.page.keyboard.press("Enter")
    eyes.page.wait_for_url("**/experts?**")
    eyes.rest()
    assert ("layer=layer+4" in eyes.page.url, "expert=1" in eyes.page.url) == (True, True), eyes.page.url


def test_flow_is_read_by_keys(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("structure?layer=layer+1&run=0")
    plot, live = eyes.page.locator(".flow .plot"), eyes.page.locator(".flow .live")
    plot.focus()
    said = []
    for key in ("ArrowRight", "ArrowUp", "ArrowRight", "ArrowDown"):
        eyes.page.keyboard.press(key)
        said.append(live.text_content().partition("tokens")[0].rpartition("expert")[0])
    assert said == ["layer 1 ", "layer 1 ", "layer 2 ", "layer 2 "]
    expert = plot.locator(".tip.shown b").inner_text()
    eyes.page.keyboard.press("Enter")
    assert live.text_content() == f"{expert} is followed"
    eyes.page.wait_for_url("**follow=2.**")
    eyes.rest()
    layer, number = expert.removeprefix("layer ").split(" expert ")
    assert eyes.page.get_by_label("Follow", exact=True).first.input_value() == f"expert {number} of layer {layer}"


def test_brush_is_made_by_keys(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("meaning?question=senses&run=0")
    plot, live = eyes.page.locator(".scatter .plot"), eyes.page.locator(".scatter .live")
    plot.focus()
    places, seen = [], plot.locator(".ring")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        eyes.page.keyboard.press(key)
        places.append(seen.evaluate("node => [parseFloat(node.style.left), parseFloat(node.style.top)]"))
    steps = [(b[axis] - a[axis]) * way for a, b, axis, way in zip(places, places[1:], (0, 1, 0, 1), (1, 1, -1, -1))]
    assert [step > 0 for step in steps] == [True] * 4, places
    assert live.text_content() == plot.locator(".tip.shown").inner_text()
    for key in ("Space", "ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown"):
        eyes.page.keyboard.press(key)
    assert "tokens in the rectangle" in live.text_content()
    count = live.text_content().split()[0]
    eyes.page.keyboard.press("Space")
    assert live.text_content() == f"{count} tokens chosen"
    eyes.page.wait_for_url("**brush=**")
    eyes.rest()
    listed = eyes.page.get_by_text("choose a row to see its route")
    assert listed.inner_text() == f"{count} tokens; choose a row to see its route."
    eyes.picture("brush-by-keys")
    eyes.page.keyboard.press("Escape")
    assert live.text_content() == "no rectangle"
    eyes.page.wait_for_url(lambda url: "brush=" not in url)
    eyes.rest()
    assert "drag over" in listed.inner_text()


def test_everything_is_reached_by_keyboard(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("tokens?run=0")
    reached = []
    while len(reached) < 60 and "tokens" not in reached:
        eyes.page.keyboard.press("Tab")
        deepest = "let a = document.activeElement; while (a.shadowRoot?.activeElement) a = a.shadowRoot.activeElement; "
        reached.append(eyes.page.evaluate(f"() => {{ {deepest} return a.className.split(' ')[0] || a.tagName }}"))
    assert "tokens" in reached, reached
    for key in ("ArrowRight", "Enter"):
        eyes.page.keyboard.press(key)
    eyes.page.locator(".ms-route").wait_for()


def test_row_of_a_table_is_chosen_by_keys(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("experts?layer=layer+2&expert=1&run=0")
    eyes.page.locator("[data-testid=stDataFrame] canvas").first.focus()
    for key in ("ArrowDown", "ArrowDown", "Shift+Space"):
        eyes.page.keyboard.press(key)
    eyes.page.wait_for_url("**word=**")
    eyes.page.locator(".ms-section p").filter(has_text="With “").wait_for()
