"""Pictures in a real browser: as a file, in a notebook's frame, without scripts; hostile texts stay texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic_app
from browser import IN_A_BROWSER

from moescope import show

pytestmark = IN_A_BROWSER


class Seen:
    """A page that was opened, and what went wrong on it."""

    def __init__(self, context: Any, path: Path) -> None:
        self.wrong: list[str] = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message) or dialog.dismiss())
        self.page.on(
            "request", lambda r: self.wrong.append(r.url) if not r.url.startswith(("file:", "data:", "about:")) else None
        )
        self.page.goto(path.as_uri())


@pytest.fixture(params=["light", "dark"])
def context(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    made = chromium.new_context(viewport={"width": 900, "height": 700}, color_scheme=request.param)
    yield made
    made.close()


def test_tokens_answer_to_pointer_slider_and_keys(context: Any, recounted_store: Path, tmp_path: Path) -> None:
    seen = Seen(context, show.tokens(recounted_store, 7, 0).save(tmp_path / "a.html"))
    page, frame = seen.page, show.tokens(recounted_store, 7, 2).frame
    page.locator(".t").nth(3).hover()
    assert "expert" in page.locator(".tip.shown").inner_text()
    page.locator(".t").nth(3).click()
    rows = page.locator(".routed tr")
    assert [rows.nth(i).locator("td").first.inner_text() for i in range(1, 4)] == ["decoder 2", "decoder 1", "decoder 0"]
    page.locator("input[type=range]").fill("2")
    assert page.locator("output").inner_text() == "decoder 2 · 4 experts, top-2"
    shown = [page.locator(".t").nth(i).get_attribute("data-expert") for i in range(page.locator(".t").count())]
    assert shown == [str(chosen[0]) for chosen in frame["experts"]]
    assert page.locator(".t.sel").count() == 1  # the choice stays
    page.locator(".tokens").press("Home")
    page.locator(".tokens").press("Enter")
    assert page.locator(".t.sel").get_attribute("data-i") == "0"
    assert seen.wrong == []


def test_a_notebook_sees_it_live_and_a_site_without_frames_sees_it_still(
    context: Any, recounted_store: Path, tmp_path: Path
) -> None:
    bundle = show.tokens(recounted_store, 7, 1)._repr_mimebundle_()
    (tmp_path / "cell.html").write_text(f"<!doctype html><body data-jp-theme-light='false'>{bundle['text/html']}")
    seen = Seen(context, tmp_path / "cell.html")
    inside = seen.page.frame_locator("iframe")
    inside.locator(".t").nth(2).click()
    inside.locator(".routed table").wait_for()
    assert inside.locator("html").get_attribute("data-theme") == "dark"  # as the notebook is
    assert seen.page.locator("iframe").evaluate("f => f.offsetHeight >= f.contentDocument.querySelector('main').offsetHeight")
    seen.page.locator("iframe").evaluate("f => f.remove()")
    still = seen.page.locator("img")
    assert still.evaluate("i => [i.complete, i.naturalWidth > 300, i.offsetWidth > 300]") == [True, True, True]
    assert seen.wrong == []


def test_hostile_texts_do_nothing(context: Any, tmp_path: Path) -> None:
    store = synthetic_app.hostile(tmp_path / "hostile.duckdb")
    for name in ("tokens", "route", "load", "experts", "flow"):
        picture = getattr(show, name)(store)
        seen = Seen(context, picture.save(tmp_path / f"{name}.html"))
        assert seen.page.locator("main").is_visible()
        assert seen.page.locator("img[src=x]").count() == 0
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        (tmp_path / f"{name}.svg").write_text(picture.to_svg())
        assert Seen(context, tmp_path / f"{name}.svg").wrong == seen.wrong == []
