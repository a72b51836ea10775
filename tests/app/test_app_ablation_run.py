"""The button "Run it" of the Ablation page, in a real browser, on a shipped model."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser import IN_A_BROWSER, Eyes

import moescope
from moescope.cli.show.app import serving

pytestmark = IN_A_BROWSER
TRACE = ["trace", "mixtral", "--data", "text", "--limit", "4", "--name", "four texts"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "four.duckdb"
    code = "from moescope.cli import main; main()"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *TRACE, "--store", str(path)], check=True, env=environment, capture_output=True)
    return path


def test_run_it_shows_progress_then_effects(store: Path, chromium: Any) -> None:
    with serving(store) as site, chromium.new_context(viewport={"width": 1440, "height": 1600}) as context:
        eyes = Eyes(context.new_page(), site)
        eyes.go("ablation?take=0%2C3&instead=zero&of=layer+2")
        eyes.page.get_by_text("Nothing was ablated in this run").wait_for()
        eyes.page.get_by_role("button", name="Run it").click()
        eyes.page.get_by_role("progressbar").first.wait_for()
        eyes.page.get_by_role("button", name="Stop").wait_for()
        eyes.picture("ablation-runs")
        eyes.page.get_by_text("the effects are in run 0").wait_for()
        eyes.page.get_by_text("Beside experts of equal load").wait_for()
        eyes.rest()
        eyes.picture("ablation-done")
        assert "Of 2 sets of experts" in eyes.page.locator(".ms-reading").first.inner_text()
        eyes.sound()
    with moescope.open(store) as opened:
        found = opened.rows("select distinct layer, expert, mode from ablation_effects where control = 'none' order by all")
    assert found == [(2, 0, "zero"), (2, 3, "zero")]
