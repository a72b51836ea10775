"""moescope recover: keep what a cut-off trace had committed."""

from pathlib import Path

import click

from ._options import FILE


@click.command(name="recover")
@click.argument("store", type=FILE)
def command(store: Path) -> None:
    """Join the runs that were cut off to STORE as they are (status `interrupted`); --resume can still go on with them."""
    from ..store import RunWriter
    from ..store.revive import unfinished

    dead = [part for part in unfinished(store) if not part.alive()]
    for part in dead:
        number = RunWriter.resume(store, part).close({"status": "interrupted"}, part.progress)
        click.echo(f"run {number} of {store}: {len(part.shards)} committed shards joined")
    if not dead:
        click.echo(f"{store} has no run that was cut off")
