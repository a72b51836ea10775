"""One visitor's session on the dashboard, step by step, in a real browser: seconds until it is seen, until all is drawn."""

from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from moescope.cli.show.app import Site

CHART = "[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas, .heat canvas, .scatter canvas, .flow canvas"
TABLE = "[data-testid=stDataFrame]"
PAGES = (
    ("Tokens", ".tokens .t"),
    ("Experts", ".ms-context a"),
    ("Load and entropy", CHART),
    ("Compare", ".ms-head h1"),
    ("Structure", CHART),
    ("Syntax or meaning", CHART),
    ("Dimensionality", ".ms-section h2"),
    ("Ablation", ".ms-head h1"),
    ("SQL", TABLE),
    ("Runs", ".ms-card"),
)
WAIT = 60_000
WATCH = """
(() => {
  const s = window.watching = {t0: 0, armed: true, ran: false, quiet: null, done: null, changed: 0}
  s.arm = () => Object.assign(s, {t0: null, armed: true, ran: false, quiet: null, done: null, changed: 0})
  const begin = () => { if (s.armed && s.t0 === null) s.t0 = performance.now() }
  for (const kind of ['pointerdown', 'keydown']) addEventListener(kind, begin, true)
  new MutationObserver(() => { s.changed = performance.now() }).observe(document, {childList: true, subtree: true})
  let last = 0
  const look = now => {
    const app = document.querySelector('[data-testid=stApp]')
    const running = app?.dataset.testScriptState !== 'notRunning'
    if (running && s.t0 !== null) s.ran = true
    const waits = document.querySelector('[data-stale=true], [data-testid=stSkeleton], [data-testid=stSpinner]')
    if (!app || running || waits || now - last > 70) s.quiet = null; else s.quiet ??= now
    last = now
    const still = s.quiet !== null && now - Math.max(s.quiet, s.changed) > 300
    if (s.t0 !== null && s.done === null && still && (s.ran || now - s.t0 > 1500))
      s.done = Math.max(s.quiet, s.changed, s.t0) - s.t0
    requestAnimationFrame(look)
  }
  requestAnimationFrame(look)
})()"""  # from the press of a key or button until no script runs and 0.3 s pass without a change, a wait or a slow frame


class Session:
    """A browser with nothing in its cache."""

    def __init__(self, process: psutil.Process, site: Site, browser: Any) -> None:
        self.process, self.site, self.took = process, site, dict[str, tuple[float, float, float]]()
        self.page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
        self.page.add_init_script(WATCH)

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        return float(sum(sum(p.cpu_times()[:2]) for p in [self.process, *self.process.children(recursive=True)]))

    def step(self, name: str, act: Callable[[], Any], done: Callable[[], Any] | None = None) -> None:
        """Seconds from the press until it is seen (`done`) and until all is drawn, and the server's CPU seconds."""
        before = self.cpu()
        self.page.evaluate("window.watching?.arm()")
        act()
        if done:
            done()
        seen = self.page.evaluate("performance.now() - window.watching.t0")
        self.page.wait_for_function("window.watching.done !== null", timeout=WAIT)
        drawn = self.page.evaluate("window.watching.done")
        self.took[name] = (seen if done else drawn) / 1000, drawn / 1000, self.cpu() - before
        self.page.wait_for_timeout(200)

    def seen(self, selector: str, text: str | None = None) -> Callable[[], Any]:
        """Waits until it is there."""
        return lambda: self.page.locator(selector).filter(has_text=text).first.wait_for(timeout=WAIT)

    def choose(self, box: str, option: str, done: Callable[[], Any] | None = None, name: str = "") -> None:
        """One option of a select box."""
        self.page.get_by_label(box, exact=True).first.click()
        wanted = self.page.get_by_role("option", name=option, exact=True)
        wanted.wait_for(timeout=WAIT)
        self.step(f"{self.place}: {name or option}", wanted.click, done)

    def open(self, page: str, ready: str) -> None:
        """A page by its address, not timed."""
        self.place = page.partition("?")[0]
        self.page.goto(self.site.of(page))
        self.seen(ready)()
        self.page.wait_for_function("window.watching.done !== null", timeout=WAIT)

    def measure(self) -> dict[str, tuple[float, float, float]]:
        """Every step; the session ends."""
        self.step("first page", lambda: self.page.goto(self.site.of(), wait_until="commit"), self.seen(CHART))
        for name, ready in PAGES:
            link = self.page.get_by_role("link", name=name, exact=True)
            self.step(f"open {name}", link.click, lambda n=name, r=ready: (self.seen(".ms-head h1", n)(), self.seen(r)()))
        for part in (self.tokens, self.experts, self.load, self.structure, self.meaning, self.sql):
            part()
        self.page.context.close()
        return self.took

    def tokens(self) -> None:
        """Clicks on tokens, another layer, colours, a search, another sequence."""
        self.open("tokens", ".tokens .t")
        for number in (5, 50):
            cell = self.page.locator(".tokens .t").nth(number)
            self.step(f"tokens: click token {number}", cell.click, self.seen(".ms-run span", f"position {number} "))
        for layer in ("layer 3", "layer 11"):
            self.choose("Layer", layer, self.seen("[data-testid=stCaptionContainer] strong", layer))
        self.choose("Colour", "entropy of the decision", self.seen(".chip", "entropy"))
        self.choose("Domain", "domain: law", self.seen("[data-testid=stCaptionContainer]", "law"))
        self.type("Search", "word7", "tokens: search")

    def type(self, box: str, words: str, name: str) -> None:
        """Words into a text field, and Enter."""
        field = self.page.get_by_label(box, exact=True).first
        field.fill(words)
        self.step(name, lambda: field.press("Enter"))

    def experts(self) -> None:
        """Another expert, another layer, the sections below, a search."""
        self.open("experts", ".ms-context a")
        for box, option in (("Expert", "expert 5"), ("Expert", "expert 6"), ("Layer", "layer 3")):
            before = self.page.locator(".ms-context").inner_text()
            self.choose(box, option, partial(self.changed, before))
        for section in ("Its company", "Without it", "What it prefers"):
            self.step(f"experts: {section}", self.page.get_by_role("radio", name=section).click, self.seen("h2", section))
        for words in ("law", "word7"):
            self.type("Find experts by what they do", words, f"experts: find {words}")

    def changed(self, before: str) -> None:
        """Until the contexts are others."""
        words = "before => document.querySelector('.ms-context')?.innerText !== before"
        self.page.wait_for_function(words, arg=before, timeout=WAIT)

    def load(self) -> None:
        """Filters of the heat map."""
        self.open("load", CHART)
        for option in ("prompts", "positions 16–", "first token", "everything"):
            self.choose("Of which tokens", option)
        self.choose("Value", "share of first choices")
        self.choose("Of which domain or class", "domain: law")
        self.cell(".heat canvas", 300, 60, "load: click on a cell", self.seen(".ms-context a"))

    def cell(self, canvas: str, x: int, y: int, name: str, done: Callable[[], Any] | None = None) -> None:
        """A click on a canvas."""
        place = self.page.locator(canvas).first
        self.step(name, lambda: place.click(position={"x": x, "y": y}), done)

    def structure(self) -> None:
        """Another layer, an expert to follow."""
        self.open("structure", CHART)
        self.choose("Layer", "layer 3")
        self.choose("Follow", "expert 5 of layer 3", name="follow an expert")
        self.cell(".flow canvas", 16, 300, "structure: follow by a click")

    def meaning(self) -> None:
        """Another question, another colour."""
        self.open("meaning", CHART)
        self.choose("Question", "domains and classes")
        self.choose("Colour", "document")
        self.brush()

    def brush(self) -> None:
        """A drag over the map."""
        box = self.page.locator(".scatter canvas").bounding_box()
        mouse, (x, y) = self.page.mouse, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

        def drag() -> None:
            mouse.move(x - 60, y - 60)
            mouse.down()
            mouse.move(x + 20, y + 20)
            mouse.move(x + 60, y + 60)
            mouse.up()

        self.step("meaning: brush", drag)

    def sql(self) -> None:
        """A chart in place of the table, another view in the dictionary, another query."""
        self.open("sql", TABLE)
        self.step("sql: chart", self.page.get_by_role("radio", name="Chart").click, self.seen(CHART))
        self.choose("View or table", "expert_load")
