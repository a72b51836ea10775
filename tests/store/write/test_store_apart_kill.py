"""Killed while a large run is finished, added or packed: nothing is lost, and going on works."""

import os
import signal
from pathlib import Path

import handmade
import pytest
import tracing
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.store.integrity.verify import verify
from moescope.store.write import apart, pack


@pytest.mark.slow
@pytest.mark.parametrize("point", [*tracing.POINTS, *(f"pack {point}" for point in ("copied", "before", "after", "removed"))])
@pytest.mark.sampled(2)
def test_killed_while_finishing_adding_or_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """A run is there already; the second dies on its way, or the packing of both does. Nothing is lost, and going on works."""
    server = tracing.server()  # before the setting: it lives on, and other tests ask it too
    monkeypatch.setenv(apart.SETTING, "1")
    store, packing = tmp_path / "run.duckdb", point.startswith("pack")
    handmade.written(store)
    if packing:
        handmade.written(store, name="second")
    process = server.Process(target=_packs if packing else _writes, args=(store, point))
    process.start()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)  # a point that this way does not come to
    with moescope.open(store) as opened:
        counts = opened.rows("select run, count(*) from decisions group by all order by run")
        assert counts[0] == (0, 8)
        assert not packing or counts == [(0, 8), (1, 8)]
    CliRunner().invoke(main, ["recover", str(store)])
    handmade.written(store, name="third")
    pack.pack(store)
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == []
        assert opened.rows("select count(*) from decisions where run = 0") == [(8,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.duckdb"]


def _writes(store: Path, point: str) -> None:
    os.environ[apart.SETTING] = "1"
    tracing.die_at(point)
    handmade.written(store, name="second")


def _packs(store: Path, point: str) -> None:
    """Die at one of the steps of packing."""
    from moescope.store.write import change
    from moescope.store.write.unfinished_run import UnfinishedRun

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    replace = os.replace
    if point == "pack copied":
        apart.unite = die  # type: ignore[assignment]
    elif point == "pack before":
        change.os.replace = die  # type: ignore[assignment]
    elif point == "pack after":
        change.os.replace = lambda *args: (replace(*args), die())  # type: ignore[assignment, func-returns-value]
    else:
        UnfinishedRun.remove = die  # type: ignore[method-assign]
    pack.pack(store)
