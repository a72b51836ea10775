"""The dashboard in a real browser: it renders, clicks do what they say, the URL holds the state, hostile text stays text."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic_app

CHROMIUM = Path("/usr/bin/chromium")
ROOT = Path(__file__).parents[1]
ARTIFACTS = Path(__file__).parent / "artifacts"
VIEWS = sorted(path.stem for path in (ROOT / "app" / "views").glob("[a-z]*.py"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IDLE = '[data-testid=stApp][data-test-script-state="notRunning"]'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium: apt-get install chromium"),
]


class Site:
    """A running dashboard."""

    def __init__(self, store: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        code = "from moescope.cli.app import command; command()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(store), "--port", str(self.port), "--headless"],
            cwd=store.parent,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.url = f"http://127.0.0.1:{self.port}/"
        self._wait()

    def _wait(self) -> None:
        for _ in range(240):
            try:
                urllib.request.urlopen(self.url + "_stcore/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.25)
        raise TimeoutError("the dashboard did not start")

    def stop(self) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait(20)


class Eyes:
    """A page that notes what goes wrong on it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.console: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(180_000)  # a busy machine is slow, not wrong
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        # Streamlit looks for its own server below the page's path first, and is told 404.
        if message.type == "error" and "/_stcore/" not in str(message.location):
            self.console.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.foreign.append(request.url)

    def go(self, where: str = "") -> None:
        self.page.goto(self.url + where)
        self.rest()

    def rest(self) -> None:
        """Until the script has run and the page is drawn."""
        self.page.locator(".ms-head h1").first.wait_for()
        self.page.wait_for_timeout(300)
        self.page.locator(IDLE).wait_for()

    def sound(self) -> None:
        """No error on the page, none in the console, nothing asked elsewhere."""
        assert self.page.locator("[data-testid=stAlertContentError]").all_inner_texts() == []
        assert self.page.locator("[data-testid=stException]").count() == 0
        assert self.console == []
        assert self.foreign == []

    def picture(self, name: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    folder = tmp_path_factory.mktemp("sites")
    made = {
        name: Site(make(folder / f"{name}.duckdb"))
        for name, make in (("demo", synthetic_app.demo), ("hostile", synthetic_app.hostile))
    }
    yield made
    for site in made.values():
        site.stop()


def looking(chromium: Any, site: Site, **options: Any) -> Eyes:
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, **options)
    return Eyes(context.new_page(), site.url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_view_renders(view: str, scheme: str, chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"], color_scheme=scheme)
    eyes.go(view)
    eyes.picture(f"{view}-{scheme}")
    eyes.sound()


@pytest.mark.parametrize("view", VIEWS)
def test_hostile_text_stays_text(view: str, chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["hostile"])
    eyes.page.on("dialog", lambda dialog: eyes.console.append("dialog " + dialog.message) or dialog.dismiss())
    eyes.go(view)
    eyes.picture(f"hostile-{view}")
    assert eyes.page.title() != "owned"
    assert eyes.page.locator("img[src=x]").count() == 0
    eyes.sound()


def test_token_click_shows_its_route_and_the_url_restores_it(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("tokens?layer=layer+2")
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
    again = looking(chromium, sites["demo"])
    again.go(eyes.page.url.removeprefix(eyes.url))
    again.page.locator(".ms-route").wait_for()
    assert again.page.locator(".ms-route").inner_text() == before
    assert again.page.locator(".t.sel").get_attribute("data-token") == token
    eyes.sound()


def test_keys_choose_a_token(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("tokens")
    eyes.page.locator(".tokens").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        eyes.page.keyboard.press(key)
    eyes.page.locator(".ms-route").wait_for()
    assert eyes.page.locator(".t.sel").get_attribute("data-i") == "2"
    eyes.sound()


def test_encoder_stands_beside_decoder(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("tokens?run=2")
    eyes.page.locator(".tokens").nth(1).wait_for()
    assert eyes.page.locator(".tokens").count() == 2
    eyes.picture("encoder-decoder")
    eyes.sound()


def test_patches_lie_over_the_image(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("tokens?run=3")
    eyes.page.locator(".grid .t").first.wait_for()
    assert eyes.page.locator(".grid .tokens").first.locator(".t").count() == 49
    eyes.page.locator(".grid .tokens").first.locator(".t").nth(24).click()
    eyes.page.locator(".ms-route").wait_for()
    eyes.picture("patches")
    eyes.sound()


def test_heat_map_cell_opens_its_expert(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("load")
    cells = eyes.page.locator("[data-testid=stVegaLiteChart]").first.locator("path[aria-roledescription=rect]")
    cells.first.wait_for()
    wanted = cells.nth(9).get_attribute("aria-label") or ""
    said = dict(part.split(": ") for part in wanted.split("; "))
    cells.nth(9).click()
    eyes.page.wait_for_url("**/experts?**")
    eyes.rest()
    assert f"expert={said['expert']}" in eyes.page.url
    assert f"layer=layer+{said['layer']}" in eyes.page.url or said["layer"] == "3"
    eyes.sound()


def test_run_follows_from_page_to_page(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("runs?run=3")
    eyes.page.get_by_role("link", name="Load and entropy").click()
    eyes.page.wait_for_url("**/load**")
    eyes.rest()
    assert "run=3" in eyes.page.url
    eyes.sound()


def test_context_opens_its_token(chromium: Any, sites: dict[str, Site]) -> None:
    eyes = looking(chromium, sites["demo"])
    eyes.go("experts?layer=layer+2&expert=1")
    eyes.page.locator(".ms-context a").first.click()
    eyes.page.locator(".ms-route").wait_for()
    assert eyes.page.locator(".t.sel").count() == 1
    eyes.sound()


def test_growing_store_is_followed_and_vanished_one_told(chromium: Any, tmp_path: Path) -> None:
    store = tmp_path / "live.duckdb"
    synthetic_app.text_run(store, "first", documents=2)
    site = Site(store)
    try:
        eyes = looking(chromium, site)
        eyes.go("runs")
        writer = synthetic_app.text_run(store, "second", documents=2, finish=False)
        eyes.page.get_by_text("second").first.wait_for(state="attached")
        eyes.sound()
        synthetic_app.done(writer, 2)
        shutil.move(store, tmp_path / "away.duckdb")
        eyes.page.get_by_text("is not there").wait_for()
        shutil.move(tmp_path / "away.duckdb", store)
        eyes.page.locator(".ms-card").first.wait_for()
    finally:
        site.stop()
