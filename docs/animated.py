"""The README's moving picture: a prompt goes through the shipped Mixtral on the page Try it: python docs/animated.py [STORE]

Twenty seconds of one real run, a frame for every token; `docs/screenshots.py` takes the still ones.
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from PIL import Image
from screenshots import CHROMIUM, IMAGES, ROOT

from moescope.cli.show.app import serving

PROMPT, TOKENS, SECONDS = "def read(self, name):", 40, 20.0
WINDOW = {"width": 1200, "height": 940}
LEFT, TOP, WIDE, HIGH = 330, 165, 850, 580  # of it, what is the page's own
QUALITY = 46


def shot(page: Any) -> Image.Image:
    """What is seen of the page, without the sidebar."""
    clip = {"x": LEFT, "y": TOP, "width": WIDE, "height": HIGH}
    return Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB")


def wait(page: Any, done: Callable[[], bool]) -> None:
    """Until it is so, two minutes at most."""
    for _ in range(240):
        if done():
            return
        page.wait_for_timeout(500)
    raise SystemExit("the prompt did not come to its end in two minutes")


def frames(page: Any, where: str) -> list[Image.Image]:
    """The prompt, and the page after every token."""
    page.goto(where)
    run, stop, line = (
        page.get_by_role("button", name="Run", exact=True), page.get_by_role("button", name="Stop", exact=True),
        page.get_by_label("Token", exact=True),
    )  # fmt: skip
    run.wait_for()
    wait(page, run.is_enabled)
    found = [shot(page)] * 3
    page.get_by_label("Speed").select_option("Infinity")
    run.click()
    wait(page, lambda: int(line.get_attribute("max") or 0) >= TOKENS)
    wait(page, stop.is_disabled)
    page.get_by_role("button", name="To the first token").click()
    for _ in range(int(line.get_attribute("max"))):
        page.wait_for_timeout(120)
        found.append(shot(page))
        page.get_by_role("button", name="One token on").click()
    page.wait_for_timeout(300)
    return [*found, shot(page)]


def main() -> None:
    """Serve the store, run the prompt, write the picture."""
    from playwright.sync_api import sync_playwright

    store = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo.duckdb")
    with serving(store) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WINDOW, reduced_motion="no-preference")
        page.set_default_timeout(120_000)
        found = frames(page, site.of(f"try_it?model=mixtral&prompt={quote_plus(PROMPT)}"))
    times = [round(1000 * SECONDS / (len(found) + 6))] * len(found)
    times[-1] *= 7  # the end stays for a while
    found[0].save(
        IMAGES / "try-it.webp", save_all=True, append_images=found[1:], duration=times, loop=0, quality=QUALITY, method=6,
        minimize_size=True,
    )  # fmt: skip
    print(IMAGES / "try-it.webp", (IMAGES / "try-it.webp").stat().st_size, len(found))


if __name__ == "__main__":
    main()
