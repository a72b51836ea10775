"""How long a visitor of the page Try it waits, in a real browser: for page, model, first token, and a run that is kept.

python -m benchmarks.scale.live [--store run.duckdb] [--times 5]    (without a store, a small one is traced first)
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import sync_playwright

from moescope.cli.show.app import serving

CHROMIUM = Path("/usr/bin/chromium")
PROMPTS = (
    "The house on the hill was",
    "def route(token):",
    "Let x be a number such that",
    "The party of the first part",
    "Es war",
)


def seconds(act: Callable[[], Any], seen: Callable[[], Any]) -> float:
    """From an act to what is seen of it."""
    began = time.monotonic()
    act()
    seen()
    return round(time.monotonic() - began, 3)


def measured(page: Any, address: str, times: int) -> dict[str, Any]:
    """Seconds: of the page, until the model is ready, to first tokens, to the ends of 40, and to a run that is kept."""
    ready, first, over = (page.locator(f".live-page {s}").first for s in (".go:not([disabled])", ".t", ".keep input"))
    found: dict[str, Any] = {"page": seconds(lambda: page.goto(address), page.locator(".live-page .go").wait_for)}
    found["model ready"] = seconds(lambda: None, ready.wait_for)
    firsts, ends = [], []
    page.locator("select[aria-label=Speed]").select_option(label="as they come")
    for number in range(times):
        page.locator(".live-page textarea").first.fill(PROMPTS[number % len(PROMPTS)])
        began = time.monotonic()
        firsts.append(seconds(page.locator(".live-page .go").click, first.wait_for))
        over.wait_for()
        ends.append(round(time.monotonic() - began, 3))
    kept = page.locator(".live-page .keep .link").first
    found |= {
        "first token": firsts,
        "first token, median": statistics.median(firsts),
        "all 40, median": statistics.median(ends),
    }
    return found | {"kept": seconds(page.locator(".live-page .keep button").first.click, kept.wait_for)}


@click.command()
@click.option("--store", type=click.Path(path_type=Path))
@click.option("--times", default=5, show_default=True)
def main(store: Path | None, times: int) -> None:
    """Print the seconds as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        if store is None:
            import moescope

            store = Path(folder) / "small.duckdb"
            moescope.trace("mixtral", "text", store, limit=4)
        with serving(store) as site, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(120_000)
            print(json.dumps(measured(page, site.of("try_it"), times), indent=1))
            browser.close()


if __name__ == "__main__":
    main()
