"""Real processes that are killed: nothing committed is lost, and going on gives the record of a run that was not."""

import json
import os
import pkgutil
import random
import signal
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import tracing
from click.testing import CliRunner
from sampled import how_many

from moescope.cli import main
from moescope.errors import StoreError
from moescope.store import open_store
from moescope.tracer import Options, trace
from moescope.tracer.recorder import Recorder

WHILE_JOINING = [
    "moescope.store.write.join.insert_head",
    "moescope.store.write.change.sync",
    "moescope.tracer.handover.sink:Sink.finish",
]
KILLS = int(os.environ.get("MOESCOPE_KILLS", how_many(16, 4)))


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Processes are forked from one that has imported everything and done nothing."""
    return tracing.server()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a run tells that nobody disturbs."""
    store = tmp_path_factory.mktemp("whole") / "run.duckdb"
    trace(tracing.tiny(), tracing.ids(), store, batch_size=2, options=Options(commit_rows=1))
    return tracing.told(store)


def start(server: ForkServerContext, *args: Any, **settings: Any) -> ForkServerProcess:
    process = server.Process(target=tracing.run, args=args, kwargs=settings)
    process.start()
    return process


def far(store: Path) -> dict[str, Any] | None:
    """What `moescope info` says of the only run; None where there is none yet."""
    if not store.exists():
        return None
    said = CliRunner().invoke(main, ["info", str(store), "--json"])
    assert said.exit_code == 0, said.output
    runs = json.loads(said.output)["runs"]
    assert len(runs) <= 1
    return runs[0] if runs else None


def finish(server: ForkServerContext, store: Path) -> None:
    """Go on, or begin where nothing is there to go on with."""
    process = start(server, store, resume=far(store) is not None)
    process.join()
    assert process.exitcode == 0


def check(store: Path, committed: int) -> None:
    """The store opens, says how far it got, and has at least the batches that were committed."""
    found = far(store)
    if found is None:
        assert committed == 0
        return
    assert found["status"] in ("interrupted", "complete")
    done = (found["progress"] or {}).get("batches", 0)
    assert done >= committed
    assert found["sequences"] == 2 * done
    assert found["forwards"] == done


@pytest.mark.slow
def test_kill_at_random_instants(server: ForkServerContext, whole: dict[str, list[str]], tmp_path: Path) -> None:
    chance = random.Random(2026)
    begun = time.monotonic()
    finish(server, tmp_path / "first.duckdb")
    length, kills, number = time.monotonic() - begun, 0, 0
    while kills < KILLS:
        store, witness, number = tmp_path / f"{number}.duckdb", tmp_path / f"{number}.witness", number + 1
        witness.touch()
        for _ in range(3):
            found = far(store)
            if found is not None and found["status"] == "complete":
                break
            process = start(server, store, witness, resume=found is not None)
            process.join(chance.uniform(0, length))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            assert process.exitcode in (0, -signal.SIGKILL)
            check(store, witness.stat().st_size)
        finish(server, store)
        assert tracing.differences(store, whole) == {}
        assert sorted(p.name for p in tmp_path.glob(f"{store.name}*")) == [store.name]


@pytest.mark.slow
@pytest.mark.parametrize("point", tracing.POINTS)
@pytest.mark.sampled(2)
def test_kill_at_the_worst_instants(server: ForkServerContext, whole: dict[str, list[str]], tmp_path: Path, point: str) -> None:
    store = tmp_path / "run.duckdb"
    process = start(server, store, None, point)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check(store, 0)
    finish(server, store)
    assert tracing.differences(store, whole) == {}
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


@pytest.mark.slow
def test_a_stream_that_is_killed_goes_on_at_the_same_place(server: ForkServerContext, tmp_path: Path) -> None:
    """Twice, in the middle of a commit, each time within batches that were drawn together."""
    store = tmp_path / "run.duckdb"
    tracing.stream(tmp_path / "whole.duckdb")
    for dies, resume in ((3, False), (11, True), (None, True)):
        process = server.Process(target=tracing.stream, args=(store, dies), kwargs={"resume": resume})
        process.start()
        process.join()
        assert process.exitcode == (0 if dies is None else -signal.SIGKILL)
        found = far(store)
        assert found is not None
        assert found["status"] == ("interrupted" if dies else "complete")
        assert (found["progress"]["batches"] == dies) or dies is None
    assert tracing.differences(store, tracing.told(tmp_path / "whole.duckdb")) == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.duckdb", "whole.duckdb"]


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_interrupt_closes_the_store_and_going_on_gives_the_same(
    server: ForkServerContext, whole: dict[str, list[str]], tmp_path: Path, seed: int
) -> None:
    store, chance, joined = tmp_path / "run.duckdb", random.Random(seed), []
    for stop in sorted(chance.sample(range(1, 20), 2)):
        process = start(server, store, resume=far(store) is not None)
        while process.is_alive() and (far(store) or {"forwards": 0})["forwards"] < stop:
            time.sleep(0.01)
        assert process.pid is not None
        with suppress(ProcessLookupError):  # already done
            os.kill(process.pid, signal.SIGINT)
        process.join()
        found = far(store)
        assert found is not None
        assert found["status"] in ("interrupted", "complete")  # complete: it was joining already
        joined.append(not Path(f"{store}.parts").exists())
    assert any(joined)
    finish(server, store)
    assert tracing.differences(store, whole) == {}


def test_a_batch_that_was_broken_off_is_not_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation has many forwards in a batch; the interrupt comes between them, and again before the first."""
    settings: dict[str, Any] = {"batch_size": 4, "generate": 3, "options": Options(commit_rows=1)}
    data = tracing.ids(12)
    trace(tracing.tiny(), data, tmp_path / "whole.duckdb", **settings)
    store = tmp_path / "run.duckdb"
    for stop in (7, 0):  # the eighth forward is the second of the third batch
        monkeypatch.setattr(Recorder, "_forward", tracing.broken_off(Recorder._forward, stop))
        with pytest.raises(KeyboardInterrupt):
            trace(tracing.tiny(), data, store, resume=stop == 0, **settings)
        monkeypatch.undo()
        found = far(store)
        assert found is not None
        assert (found["status"], found["progress"]["batches"]) == ("interrupted", 2)
        assert [p.name for p in tmp_path.glob("run*")] == ["run.duckdb"]
    trace(tracing.tiny(), data, store, resume=True, **settings)
    assert tracing.differences(store, tracing.told(tmp_path / "whole.duckdb")) == {}
    assert trace(tracing.tiny(), data, store, resume=True, **settings) == 0  # complete: left alone
    with pytest.raises(StoreError, match="nothing to resume"):
        trace(tracing.tiny(), data, store, resume=True, **(settings | {"generate": 2}))


@pytest.mark.parametrize("where", WHILE_JOINING)
def test_an_interrupt_while_the_run_is_joined_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    real: Any = pkgutil.resolve_name(where)
    sent: list[None] = []

    def interrupted(*args: Any) -> Any:
        if not sent:
            sent.append(None)
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    store = tmp_path / "run.duckdb"
    trace(tracing.tiny(), tracing.ids(4), store)
    monkeypatch.setattr(where.replace(":", "."), interrupted)
    with pytest.raises(KeyboardInterrupt):
        trace(tracing.tiny(), tracing.ids(8), store)
    assert len(sent) == 1
    with open_store(store) as opened:
        assert opened.rows("select status, sequences from runs order by run") == [("complete", 4), ("complete", 8)]
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]
