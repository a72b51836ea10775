"""moescope recover: keep what a cut-off trace had committed."""

from pathlib import Path
from typing import Any

import click

from .._support.options import STORE


@click.command(name="recover")
@click.argument("store", type=STORE)
@click.option("--adopt", is_flag=True, help="Also runs of another store of this name, such as one that was deleted.")
def command(store: Path, adopt: bool) -> None:
    """Join the runs that were cut off to STORE as they are (status `interrupted`); --resume can still go on with them.

    What cannot be joined is left aside as it is, and said; exit 1 then.
    """
    from ...store.write.change import ensure_store
    from ...store.write.resume import adopt as make_ours
    from ...store.write.resume import orphans, unjoined
    from ...store.write.unfinished_run import UnfinishedRun

    if adopt and not store.exists() and orphans(store):
        ensure_store(store)
    there = unjoined(store)
    foreign = [UnfinishedRun(aside.path) for aside in there.aside if aside.foreign and adopt]
    dead = [part for part in there.parts if not part.alive()] + [make_ours(store, part) for part in foreign if not part.alive()]
    left = sum(not _joined(store, part) for part in dead)
    for aside in unjoined(store).aside:
        click.echo(f"moescope: {aside}", err=True)
    if not dead:
        click.echo(f"{store} has no run that was cut off")
    if left:
        raise SystemExit(1)


def _joined(store: Path, part: Any) -> bool:
    """Join one run; False, and said, where that cannot be."""
    from ...errors import MoescopeError
    from ...store import RunWriter

    whole, fault = part.whole(deep=True)
    try:
        writer = RunWriter.resume(store, part)
        number = writer.close({"status": "interrupted"}, writer.part.progress)
    except (MoescopeError, OSError, ValueError, KeyError, TypeError) as error:
        click.echo(f"moescope: left aside: {part.path.name}: {error}", err=True)
        return False
    lost = f"; what follows was set aside ({fault})" if fault else ""
    click.echo(f"run {number} of {store}: {whole} committed shards joined{lost}")
    return True
