"""The page Try it in a real browser with a real model: it is typed, tokens come, an expert is switched off, a run is kept."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import synthetic_app
from browser import IN_A_BROWSER, Eyes, middle

import moescope
from moescope.cli.show.app import serving

pytestmark = IN_A_BROWSER
NOTE = ".live-page .acts .note"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    synthetic_app.text_run(tmp_path / "kept.duckdb", "small", documents=1)
    return tmp_path / "kept.duckdb"


@pytest.fixture
def site(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MOESCOPE_MODEL", "mixtral")
    with serving(store) as running:
        yield running


def models(pid: int) -> list[psutil.Process]:
    """Processes of the dashboard that run a model."""
    return [child for child in psutil.Process(pid).children(recursive=True) if "serve" in child.cmdline()]


def test_a_prompt_is_typed_changed_kept_and_its_process_ends_with_the_dashboard(site: Any, store: Path, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    eyes = Eyes(context.new_page(), site)
    page = eyes.page
    eyes.go("try_it")
    page.locator(NOTE, has_text="mixtral is ready: 4 routers, proved.").wait_for()
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("")
    prompt.press("Enter")
    page.locator(f"{NOTE}.wrong", has_text="The prompt is empty").wait_for()
    prompt.fill("The house on the hill")
    page.get_by_label("Tokens", exact=True).fill("6")
    prompt.press("Enter")
    page.locator(".live-page .keep input").first.wait_for()
    cells = page.locator(".side").first.locator(".t:not(.ghost)")
    texts = cells.all_inner_texts()
    assert "".join(texts).startswith("<s>The house on the hill")
    assert page.locator(".place").inner_text() == f"token {len(texts)} of {len(texts)}"
    page.get_by_label("One token back").click()
    page.locator(".live-page .player").get_by_label("One token back").press("Enter")
    assert page.locator(".place").inner_text() == f"token {len(texts) - 2} of {len(texts)}"
    assert page.locator(".t.now").count() == 1
    assert page.locator(".t.later").count() == 2
    assert page.locator(".route .ms-route tr").count() == 5
    _expert_off(page)
    second = page.locator(".side").nth(1)
    second.locator(".keep input").wait_for()
    assert page.locator(".chip.change").inner_text().split() == ["2:5", "off", "×"]
    page.locator(".differences p", has_text="decisions").wait_for()
    page.locator(".differences p", has_text="B finds what A says").wait_for()
    assert "--edit 2:5=off" in second.locator(".command").inner_text()
    second.locator(".keep input").fill("without 5")
    second.get_by_role("button", name="Keep").click()
    second.get_by_text("Kept as run 1.").wait_for()
    eyes.picture("try-it")
    with moescope.open(store) as opened:
        (kept,) = opened.rows("select name, overrides, command from runs where run = 1")
        shown = opened.rows(
            "select distinct expert from assignments join routers using (router) where assignments.run = 1 and layer = 2"
        )
    assert kept[0] == "without 5"
    assert json.loads(kept[1])["interventions"][0]["experts"] == [5]
    assert json.loads(kept[2])[:3] == ["moescope", "try", "mixtral"]
    assert (5,) not in shown
    eyes.sound()
    _leaves_no_orphan(site)
    context.close()


def _expert_off(page: Any) -> None:
    """By a click on the map, and by keyboard in its menu."""
    canvas = page.locator(".side canvas").first
    canvas.click(position=middle(canvas, 5, 1))
    page.locator(".menu").get_by_role("button", name="off").press("Enter")
    page.keyboard.press("Escape")
    assert page.locator(".menu").count() == 0


def _leaves_no_orphan(site: Any) -> None:
    """The dashboard is killed while its model answers."""
    (model,) = models(site.pid)
    os.kill(site.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while model.is_running() and model.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.1)
    assert not model.is_running() or model.status() == psutil.STATUS_ZOMBIE
