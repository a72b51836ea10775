"""A browser's page that notes what goes wrong on the dashboard."""

import json
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
IN_A_BROWSER = [  # marks of a file whose tests drive it
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium: apt-get install chromium"),
]
ROOT = Path(__file__).parents[2]
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
IDLE = '[data-testid=stApp][data-test-script-state="notRunning"]'
STILL = """() => new Promise(done => {
  const idle = () => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
  const stale = () => document.querySelector('[data-stale=true], [data-testid=stSkeleton]')
  let frames = 0
  const look = () => (frames = idle() && !stale() ? frames + 1 : 0) > 20 ? done(true) : requestAnimationFrame(look)
  look()
})"""  # twenty frames on end in which no script runs and nothing waits to be drawn
ORDERS = {
    p.stem: float(p.read_text().split('"order": ')[1].split(",")[0])
    for p in (ROOT / "moescope" / "app" / "views").glob("[a-z]*.py")
}
VIEWS = sorted(ORDERS, key=lambda view: ORDERS[view])


def address(view: str) -> str:
    """The page's path; the first page is the one that opens, and has none."""
    return "" if view == VIEWS[0] else view


def middle(canvas: Any, column: int, row: int) -> dict[str, float]:
    """Where a cell of a heat map lies on its canvas."""
    cells = json.loads(canvas.get_attribute("data-cells"))
    return {"x": cells["left"] + (column + 0.5) * cells["wide"], "y": cells["top"] + (row + 0.5) * cells["high"]}


class Eyes:
    """A page that notes errors in the console and requests that leave this machine."""

    def __init__(self, page: Any, site: Any) -> None:
        self.page, self.site, self.url = page, site, site.url
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
        """Open a page and wait until it is drawn."""
        self.page.goto(self.site.of(where))
        self.rest()

    def rest(self) -> None:
        """Until the script has run and the page is drawn."""
        self.page.locator(".ms-head h1").first.wait_for()
        self.page.locator(IDLE).wait_for()
        self.page.wait_for_function(STILL)

    def sound(self) -> None:
        """No error on the page, none in the console, nothing asked elsewhere."""
        assert self.page.locator("[data-testid=stAlertContentError]").all_inner_texts() == []
        assert self.page.locator("[data-testid=stException]").count() == 0
        assert self.console == []
        assert self.foreign == []

    def picture(self, name: str) -> None:
        """Keep what is seen."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")
