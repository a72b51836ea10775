"""The README's pictures of the dashboard, from demo.duckdb: python docs/screenshots.py [STORE]"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

import moescope
from moescope.cli.show.app import Site, serving

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
QUALITY, SIZE = 52, (1024, 640)
IDLE = '[data-testid=stApp][data-test-script-state="notRunning"]'


def run_of(store: Path, stack: str) -> int:
    """The first run that has routers in this stack and no other."""
    with moescope.open(store) as opened:
        found = opened.rows("select run from routers group by run having bool_and(stack = ?) order by run limit 1", [stack])
    return int(found[0][0]) if found else 0


def shots(store: Path) -> dict[str, tuple[str, str, int]]:
    """Name: address, what to wait for, which token to click (-1: none)."""
    text, image = run_of(store, "decoder"), run_of(store, "vision")
    return {
        "tokens": (f"tokens?run={text}&domain=domain%3Dprose", ".tokens .t", 12),
        "patches": (f"tokens?run={image}", ".grid .t", 24),
        "experts": (f"experts?run={text}&show=all", ".ms-expert", -1),
    }


def take(page: Any, site: Site, name: str, where: str, ready: str, click: int) -> None:
    """One picture."""
    page.goto(site.of(where))
    page.locator(ready).first.wait_for(timeout=120_000)
    page.locator(IDLE).wait_for(timeout=120_000)
    if click >= 0:
        page.locator(ready).nth(click).click()
        page.locator(".ms-route").wait_for(timeout=60_000)
        page.mouse.move(1300, 20)
    page.wait_for_timeout(1500)
    page.locator(IDLE).wait_for(timeout=120_000)
    shot = Image.open(BytesIO(page.screenshot())).convert("RGB")
    shot.resize(SIZE, Image.Resampling.LANCZOS).save(IMAGES / f"{name}.webp", quality=QUALITY, method=6)
    print(IMAGES / f"{name}.webp")


def main() -> None:
    """Serve the store, take the pictures, stop."""
    from playwright.sync_api import sync_playwright

    store = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo.duckdb")
    IMAGES.mkdir(exist_ok=True)
    with serving(store) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=1)
        for name, (where, ready, click) in shots(store).items():
            take(page, site, name, where, ready, click)


if __name__ == "__main__":
    main()
