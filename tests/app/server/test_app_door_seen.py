"""The dashboard's door and the end of queries, as a visitor's browser and another site's page meet them."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import IN_A_BROWSER, Eyes
from places import TOKEN

from moescope.cli.show.app import Site, serving

pytestmark = IN_A_BROWSER
LONG = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3"


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], str]]:
    """Another site on this machine that serves one page."""
    pages: dict[str, str] = {}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(pages["page"].encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(page: str) -> str:
        pages["page"] = page
        return f"http://localhost:{server.server_port}/"

    yield serve
    server.shutdown()


def test_address_lets_in_and_a_second_tab_needs_none(site: Site, chromium: Any) -> None:
    with chromium.new_context() as context:
        eyes = Eyes(context.new_page(), site)
        eyes.go("load?run=0")
        assert "token" not in eyes.page.url
        assert "/load" in eyes.page.url
        second = context.new_page()
        second.goto(f"{site.url}tokens?run=0")
        second.locator(".tokens .t").first.wait_for()
        eyes.sound()


def test_without_token_there_is_a_sentence(site: Site, chromium: Any) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        assert page.goto(f"{site.url}sql").status == 403
        assert page.locator("body").inner_text().startswith("This dashboard needs its token: open the address")


def test_link_on_another_site_opens_the_view_that_was_sent(site: Site, chromium: Any, elsewhere: Callable[[str], str]) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        for link in (site.of("load?run=0"), f"{site.url}tokens?run=0"):  # the second has the cookie of the first
            page.goto(elsewhere(f'<a href="{link}">view</a>'))
            page.get_by_role("link").click()
            page.locator(".ms-head h1").wait_for()
            assert "token=" not in page.url
            assert link.partition("?")[0] in page.url


def test_another_site_gets_nothing(site: Site, chromium: Any, elsewhere: Callable[[str], str]) -> None:
    tries = """<script>
      const seen = window.seen = {}
      const ws = new WebSocket('URL'.replace('http', 'ws') + '_stcore/stream')
      ws.onopen = () => seen.ws = 'open'
      ws.onerror = () => seen.ws = 'refused'
      const script = document.createElement('script')
      script.src = 'URL_stcore/host-config'
      script.onload = () => seen.script = 'open'
      script.onerror = () => seen.script = 'refused'
      document.head.append(script)
      const asked = fetch('URL_stcore/host-config', {credentials: 'include'})
      asked.then(() => seen.fetch = 'open', () => seen.fetch = 'refused')
    </script><iframe src="URLsql?token=TOKEN"></iframe>"""
    with chromium.new_context() as context:
        Eyes(context.new_page(), site).go()
        page = context.new_page()
        page.goto(elsewhere(tries.replace("URL", site.url).replace("TOKEN", TOKEN)))
        page.wait_for_function("Object.keys(window.seen).length === 3")
        assert page.evaluate("window.seen") == {"ws": "refused", "script": "refused", "fetch": "refused"}
        assert [frame.locator(".ms-head").count() for frame in page.frames[1:]] == [0]


def test_query_of_a_link_waits_for_run(site: Site, chromium: Any) -> None:
    with chromium.new_context() as context:
        eyes = Eyes(context.new_page(), site)
        eyes.go("sql?sql=select+41%2B1+as+answer&show=chart")
        assert eyes.page.get_by_label("Query").input_value() == "select 41+1 as answer"
        assert "until Run is pressed" in eyes.page.locator(".ms-empty").first.inner_text()
        assert eyes.page.get_by_text("row ×").count() == 0
        eyes.page.get_by_role("button", name="Run").click()
        eyes.page.get_by_text("1 row × 1 column").wait_for()
        eyes.sound()


@pytest.mark.parametrize("way", ["stop", "page", "edit", "close"])
@pytest.mark.sampled(1)
def test_query_ends_when_its_reader_goes(way: str, small: Path, chromium: Any) -> None:
    with serving(small) as site, chromium.new_context() as context:
        eyes, server = Eyes(context.new_page(), site), psutil.Process(site.pid)

        def busy() -> list[psutil.Process]:
            return [p for p in server.children() if p.is_running() and p.cpu_times().user > 2.0]

        def until(there: bool, seconds: float) -> bool:
            end = time.monotonic() + seconds
            while bool(busy()) != there and time.monotonic() < end:
                time.sleep(0.05)
            return bool(busy()) == there

        eyes.go("sql?sql=" + LONG.replace(" ", "+").replace("%", "%25"))
        eyes.page.get_by_role("button", name="Run").click()
        eyes.page.get_by_role("button", name="Stop").wait_for()
        assert until(True, 15)
        if way == "stop":
            eyes.page.get_by_role("button", name="Stop").click()
        elif way == "page":
            eyes.page.get_by_role("link", name="Load and entropy").click()
        elif way == "edit":
            eyes.page.get_by_label("Query").fill("select 1 as one")
            eyes.page.get_by_label("Query").press("Tab")
        else:
            eyes.page.close()
        assert until(False, 5)
        if way != "close":
            eyes.rest()
            eyes.sound()
