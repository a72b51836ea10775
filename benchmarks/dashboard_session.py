"""One visitor's session on the dashboard, step by step, in a real browser: seconds until it is seen, and the server's CPU."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

IDLE = '[data-testid=stApp][data-test-script-state="notRunning"]'
CHART = "[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas"
PAGES = (
    ("Tokens", ".tokens .t"),
    ("Experts", ".ms-context a"),
    ("Load and entropy", CHART),
    ("Structure", CHART),
    ("Syntax or meaning", CHART),
    ("SQL", "[data-testid=stDataFrame]"),
    ("Runs", ".ms-card"),
)
WAIT = 120_000


def serve(store: Path) -> tuple[psutil.Process, str]:
    """A dashboard over the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from moescope.cli.app import command; command()"
    command = [sys.executable, "-c", code, str(store), "--port", str(port), "--headless"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        try:
            urllib.request.urlopen(url + "_stcore/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    return psutil.Process(process.pid), url


def memory(process: psutil.Process) -> float:
    """Resident megabytes of the server."""
    return float(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 1e6)


class Session:
    """A browser with nothing in its cache."""

    def __init__(self, process: psutil.Process, url: str, browser: Any) -> None:
        self.process, self.url, self.took = process, url, dict[str, tuple[float, float]]()
        self.page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        return float(sum(sum(p.cpu_times()[:2]) for p in [self.process, *self.process.children(recursive=True)]))

    def idle(self) -> None:
        """Until the script has run and the browser has drawn."""
        self.page.locator(IDLE).wait_for(timeout=WAIT)
        self.page.wait_for_timeout(500)

    def step(self, name: str, act: Callable[[], Any], done: Callable[[], Any], whole: bool = False) -> None:
        """Seconds from the act until it is seen (`whole`: until the script is done as well), and the server's CPU seconds."""
        before, begun = self.cpu(), time.perf_counter()
        act()
        done()
        if whole:
            self.page.wait_for_timeout(100)  # until it has begun
            self.page.locator(IDLE).wait_for(timeout=WAIT)
        seconds = time.perf_counter() - begun
        self.idle()
        self.took[name] = seconds, self.cpu() - before

    def seen(self, selector: str, text: str | None = None) -> Callable[[], Any]:
        """Waits until it is there."""
        return lambda: self.page.locator(selector).filter(has_text=text).first.wait_for(timeout=WAIT)

    def choose(self, name: str, box: str, option: str, done: Callable[[], Any], whole: bool = False) -> None:
        """One option of a select box."""
        self.page.get_by_label(box, exact=True).first.click()
        wanted = self.page.get_by_role("option", name=option, exact=True)
        wanted.wait_for(timeout=WAIT)
        self.step(name, wanted.click, done, whole)

    def measure(self) -> dict[str, tuple[float, float]]:
        """Every step; the session ends."""
        self.step("first page", lambda: self.page.goto(self.url), self.seen(CHART))
        for name, ready in PAGES:
            link = self.page.get_by_role("link", name=name, exact=True)
            self.step(f"open {name}", link.click, lambda n=name, r=ready: (self.seen(".ms-head h1", n)(), self.seen(r)()))
        self.tokens()
        self.experts()
        self.others()
        self.page.context.close()
        return self.took

    def tokens(self) -> None:
        """Clicks on tokens, another layer."""
        self.page.goto(self.url + "tokens")
        self.page.locator(".tokens .t").nth(400).wait_for(timeout=WAIT)
        self.idle()
        for number in (5, 50):
            cell = self.page.locator(".tokens .t").nth(number)
            self.step(f"click token {number}", cell.click, self.seen(".ms-run span", f"position {number} "))
        for layer in ("layer 3", "layer 11"):
            shown = self.seen("[data-testid=stCaptionContainer] strong", layer)
            self.choose(f"tokens: {layer}", "Layer", layer, shown)

    def experts(self) -> None:
        """Another expert, another layer."""
        self.page.goto(self.url + "experts")
        self.seen(".ms-context a")()
        self.idle()
        for box, option in (("Expert", "expert 5"), ("Expert", "expert 6"), ("Layer", "layer 3")):
            before = self.page.locator(".ms-context").inner_text()
            self.choose(f"experts: {option}", box, option, partial(self.changed, before))

    def changed(self, before: str) -> None:
        """Until the contexts are others."""
        words = "before => document.querySelector('.ms-context')?.innerText !== before"
        self.page.wait_for_function(words, arg=before, timeout=WAIT)

    def others(self) -> None:
        """Filters of the heat map, the flow of another layer: until the page is done."""
        self.page.goto(self.url + "load")
        self.seen(CHART)()
        self.idle()
        for option in ("prompts", "positions 16–"):
            self.choose(f"load: {option}", "Of which tokens", option, lambda: None, whole=True)
        self.page.goto(self.url + "structure")
        self.seen(CHART)()
        self.idle()
        self.choose("structure: layer 3", "Layer", "layer 3", lambda: None, whole=True)
