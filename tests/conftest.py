"""Shared fixtures: one thread, no network, a small traced store."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["MOESCOPE_MODEL"] = "none"  # dashboards of tests load no model, but for those that ask for one
os.environ["MOESCOPE_CACHE"] = "off"  # tests change what analyses are made of; those of kept answers turn it on

import pytest
import torch
from places import ROOT, TOKEN

torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out most cases of tests marked `sampled`, unless all are asked for or the test was named on the command line."""
    import sampled

    named = any("::" in argument for argument in config.args)
    waiting = [] if sampled.ALL or named else sampled.left_out(items)
    config.hook.pytest_deselected(items=waiting)
    gone = set(waiting)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data beside the checkout; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with reference data is not here")
    return folder


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests of a worker: playwright keeps an event loop, of which a thread can have one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from browser import CHROMIUM, FLAGS

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def recounted_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which every decision is known: recounted.Truth."""
    import recounted

    return recounted.written(tmp_path_factory.mktemp("recounted") / "a.duckdb", recounted.Truth())


@pytest.fixture
def recounted_shown(recounted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the dashboard's modules show."""
    monkeypatch.setenv("MOESCOPE_STORE", str(recounted_store))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is served behind TOKEN."""
    import synthetic_app

    store = tmp_path_factory.mktemp("door") / "small.duckdb"
    synthetic_app.text_run(store, "small", documents=1)
    return store


@pytest.fixture(scope="module")
def site(small: Path) -> Iterator[Any]:
    """The dashboard over it."""
    from moescope.cli.show.app import serving

    with serving(small, token=TOKEN) as running:
        yield running


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """The dashboard on a store, which is made and served when it is first asked for."""
    import real
    import synthetic_app
    from synthetic_effects import add_effects

    from moescope.cli.show.app import serving

    folder = tmp_path_factory.mktemp("sites")
    makers: dict[str, Callable[[Path], Path]] = {
        "demo": lambda path: add_effects(synthetic_app.demo(path)),
        "hostile": lambda path: add_effects(synthetic_app.hostile(path)),
        "real": real.made,
    }
    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(serving(makers[name](folder / f"{name}.duckdb"))))


@pytest.fixture(scope="session")
def visitors(chromium: Any) -> Callable[..., Any]:
    """A visitor who prefers a colour scheme; he keeps the dashboard's scripts, which each would load and compile again."""
    window = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce"}
    return cache(lambda **options: chromium.new_context(**window, **options))


@pytest.fixture
def looking(visitors: Callable[..., Any], sites: Callable[[str], Any]) -> Iterator[Callable[..., Any]]:
    """Opens a fresh page on a store's dashboard; whatever went wrong on any of them fails the test."""
    from browser import Eyes

    opened: list[Eyes] = []

    def look(store: str = "demo", **options: Any) -> Eyes:
        opened.append(Eyes(visitors(**options).new_page(), sites(store)))
        return opened[-1]

    yield look
    for eyes in opened:
        eyes.sound()
        eyes.page.close()
