"""The dashboard in a real browser: it renders, clicks do what they say, the URL holds the state, hostile text stays text."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_app
from browser import IN_A_BROWSER, VIEWS, Eyes, address, middle
from sampled import how_many

from moescope.cli.show.app import serving

pytestmark = IN_A_BROWSER


DARK = {"runs", "tokens", "load", "experts", "meaning", "ablation"}  # they draw the most
LOOKS = [(view, scheme) for view in VIEWS for scheme in ("light", "dark") if scheme == "light" or view in DARK]


@pytest.mark.parametrize(("view", "scheme"), LOOKS)
@pytest.mark.sampled(5)
def test_view_renders(view: str, scheme: str, looking: Callable[..., Eyes]) -> None:
    eyes = looking(color_scheme=scheme)
    eyes.go(address(view) + "?run=0")
    eyes.picture(f"{view}-{scheme}")


@pytest.mark.sampled(0)
def test_a_store_of_the_tracer_is_shown_whole(looking: Callable[..., Eyes]) -> None:
    """Every page, one after the other, as a visitor opens them."""
    eyes = looking("real")
    eyes.go("?run=0")
    assert eyes.page.locator(".ms-card").filter(has_text="Proof").locator("b").inner_text() == "4 of 4"
    for view in VIEWS[1 :: how_many(1, 2)]:
        eyes.page.locator(f"[data-testid=stSidebarNavLink][href$='/{view}']").click()
        eyes.page.wait_for_url(f"**/{view}**")
        eyes.rest()
        eyes.sound()


def test_hostile_text_stays_text(looking: Callable[..., Eyes]) -> None:
    eyes = looking("hostile")
    eyes.page.on("dialog", lambda dialog: eyes.console.append("dialog " + dialog.message) or dialog.dismiss())
    for view in ("runs", "tokens", "experts", "load", "meaning", "ablation", "sql"):
        eyes.go(address(view))
        assert eyes.page.title() != "owned", view
        assert eyes.page.locator("img[src=x]").count() == 0, view
        eyes.sound()
    eyes.picture("hostile")


def test_token_click_shows_its_route_and_the_url_restores_it(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("tokens?layer=layer+2&run=0")
    cell = eyes.page.locator(".tokens .t").nth(6)
    token = cell.get_attribute("data-token")
    cell.hover()
    assert "expert" in eyes.page.locator(".tip.shown").inner_text()
    cell.click()
    eyes.page.locator(".ms-route").wait_for()
    eyes.rest()
    assert f"token={token}" in eyes.page.url
    assert "layer=layer+2" in eyes.page.url
    assert eyes.page.locator(".ms-route tr").count() == 7
    before = eyes.page.locator(".ms-route").inner_text()
    eyes.picture("tokens-clicked")
    again = looking()
    again.go(eyes.page.url.removeprefix(eyes.url))
    again.page.locator(".ms-route").wait_for()
    assert again.page.locator(".ms-route").inner_text() == before
    assert again.page.locator(".t.sel").get_attribute("data-token") == token


def test_encoder_stands_beside_decoder(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("tokens?run=2")
    eyes.page.locator(".tokens").nth(1).wait_for()
    assert eyes.page.locator(".tokens").count() == 2  # encoder, decoder
    eyes.picture("encoder-decoder")


def test_patches_lie_over_the_image(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("tokens?run=3")
    eyes.page.locator(".grid .t").first.wait_for()
    assert eyes.page.locator(".grid .tokens").first.locator(".t").count() == 49
    eyes.page.locator(".grid .tokens").first.locator(".t").nth(24).click()
    eyes.page.locator(".ms-route").wait_for()
    eyes.picture("patches")


def test_heat_map_cell_opens_its_expert(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("load?run=0")
    canvas = eyes.page.locator(".heat canvas").first
    canvas.hover(position=middle(canvas, 6, 1))
    eyes.page.locator(".tip.shown").filter(has_text="layer 4 · expert 6").wait_for()
    assert "assignments" in eyes.page.locator(".tip.shown").inner_text()
    canvas.click(position=middle(canvas, 6, 1))
    eyes.page.wait_for_url("**/experts?**")
    eyes.rest()
    assert ("layer=layer+4" in eyes.page.url, "expert=6" in eyes.page.url) == (True, True), eyes.page.url


def test_cell_of_an_effect_opens_its_expert(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("ablation?run=0")
    canvas = eyes.page.locator(".heat canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.hover(position=middle(canvas, 2, 0))
    said = eyes.page.locator(".tip.shown b").inner_text()
    canvas.click(position=middle(canvas, 2, 0))
    eyes.page.wait_for_url("**/experts?**")
    eyes.rest()
    layer, expert = said.rpartition("taken away ")[2].split(".")
    assert (f"layer=layer+{layer}" in eyes.page.url, f"expert={expert}" in eyes.page.url) == (True, True), eyes.page.url


def test_click_on_the_flow_follows_an_expert_and_the_url_restores_it(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("structure?layer=layer+1&run=0")
    eyes.page.locator(".flow canvas").click(position={"x": 16, "y": 420})
    eyes.page.wait_for_url("**follow=**")
    eyes.rest()
    followed = eyes.page.get_by_label("Follow", exact=True).first.input_value()
    assert followed.endswith("of layer 1")
    again = looking()
    again.go(eyes.page.url.removeprefix(eyes.url))
    assert again.page.get_by_label("Follow", exact=True).first.input_value() == followed


def test_brush_on_the_map_is_in_the_url(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("meaning?question=senses&run=0")
    eyes.page.locator(".scatter canvas").scroll_into_view_if_needed()
    box = eyes.page.locator(".scatter canvas").bounding_box()
    eyes.page.mouse.move(box["x"] + 60, box["y"] + 60)
    eyes.page.mouse.down()
    eyes.page.mouse.move(box["x"] + 300, box["y"] + 300)
    eyes.page.mouse.up()
    eyes.page.wait_for_url("**brush=**")
    eyes.rest()
    count = eyes.page.get_by_text("choose a row to see its route").inner_text()
    assert "drag over" not in count
    again = looking()
    again.go(eyes.page.url.removeprefix(eyes.url))
    assert again.page.get_by_text("choose a row to see its route").inner_text() == count


def test_opened_part_is_in_the_url(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go()
    eyes.page.get_by_text("Where it is from").click()
    eyes.page.locator("[data-testid=stJson]").wait_for()
    eyes.page.wait_for_url("**from=**")
    eyes.rest()
    again = looking()
    again.go(eyes.page.url.removeprefix(eyes.url))
    again.page.locator("[data-testid=stJson]").wait_for()


@pytest.mark.sampled(0)
def test_chosen_row_is_in_the_url(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("experts?layer=layer+2&expert=1&run=0")
    table = eyes.page.locator("[data-testid=stDataFrame]").first
    table.click(position={"x": 16, "y": 60})
    eyes.page.wait_for_url("**word=**")
    eyes.rest()
    said = eyes.page.locator(".ms-section p").filter(has_text="With “").inner_text()
    again = looking()
    again.go(eyes.page.url.removeprefix(eyes.url))
    assert again.page.locator(".ms-section p").filter(has_text="With “").inner_text() == said
    table.click(position={"x": 16, "y": 60})
    eyes.page.locator(".ms-section p").filter(has_text="Places where it is").wait_for()
    eyes.rest()
    assert "word=" not in eyes.page.url


STATES = [
    ("experts?layer=layer+2&expert=3&more=without", ".ms-section h2", "Without it"),
    ("load?what-if=1&count=unrouted", "[data-testid=stVegaLiteChart]", "tokens left without any expert"),
    ("load?domain=domain%3Dlaw&difference=1", ".heat .head", "Difference"),
    ("sql?view=load_balance&show=chart&form=scatter", "[data-testid=stText]", "Load balance of every router"),
    ("ablation?in=layer+2&use=gate_mass&control=load", ".ms-section h2", "Importance against effect"),
    ("compare?run=1&layer=layer+1", ".ms-section h2", "Side by side"),
]


@pytest.mark.parametrize(("where", "seen", "words"), STATES)
@pytest.mark.sampled(4)
def test_url_holds_the_state(where: str, seen: str, words: str, looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go(where if "run=" in where else f"{where}&run=0")
    eyes.page.locator(seen).filter(has_text=words).first.wait_for()
    said = where.partition("?")[2].split("&")
    assert [part for part in said if part not in eyes.page.url] == []


def test_chart_gives_its_sql_and_files(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("load?run=1")
    eyes.page.get_by_role("button", name="SQL · files").first.click()
    eyes.page.locator("[data-testid=stCode]").filter(has_text="from expert_load where run = 1").wait_for()
    for kind, begin in (("CSV", b"stack,layer"), ("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("PDF", b"%PDF")):
        with eyes.page.expect_download() as got:
            eyes.page.get_by_role("button", name=kind, exact=True).click()
        assert got.value.suggested_filename == f"moescope-demo-run-1-load-share-decoder.{kind.lower()}"
        assert Path(got.value.path()).read_bytes().startswith(begin)


def test_a_view_is_shared_as_a_link_with_its_defaults_and_as_a_file(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("compare?run=0")
    eyes.page.get_by_role("button", name="Share this view").click()
    link = eyes.page.locator("[data-testid=stPopoverBody] [data-testid=stCode]").inner_text().strip()
    assert link.startswith(f"{eyes.url}compare?")
    assert {"run=0", "with=1"} <= set(link.partition("?")[2].split("&"))
    assert eyes.page.title() == "Compare · mixtral-small · moescope"
    with eyes.page.expect_download() as got:
        eyes.page.get_by_role("button", name="HTML", exact=True).click()
    assert got.value.suggested_filename.startswith("moescope-demo-run-0-")
    assert "· against run 1 ·" in Path(got.value.path()).read_text()


def test_run_follows_from_page_to_page(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("?run=2")
    eyes.page.get_by_role("link", name="Load and entropy").click()
    eyes.page.wait_for_url("**/load**")
    eyes.rest()
    assert "run=2" in eyes.page.url


def test_context_opens_its_token(looking: Callable[..., Eyes]) -> None:
    eyes = looking()
    eyes.go("experts?layer=layer+2&expert=1&run=0")
    eyes.page.locator(".ms-context a").first.click()
    eyes.page.locator(".ms-route").wait_for()
    eyes.page.locator(".t.sel").wait_for()
    assert eyes.page.locator(".t.sel").count() == 1


def test_growing_store_is_followed_and_vanished_one_told(chromium: Any, tmp_path: Path) -> None:
    store = tmp_path / "live.duckdb"
    synthetic_app.text_run(store, "first", documents=2)
    with serving(store) as site:
        eyes = Eyes(chromium.new_context().new_page(), site)
        eyes.go()
        writer = synthetic_app.text_run(store, "second", documents=2, finish=False)
        eyes.page.get_by_text("second").first.wait_for(state="attached")
        eyes.sound()
        synthetic_app.done(writer, 2)
        shutil.move(store, tmp_path / "away.duckdb")
        eyes.page.get_by_text("is not there").wait_for()
        shutil.move(tmp_path / "away.duckdb", store)
        eyes.page.locator(".ms-card").first.wait_for()
