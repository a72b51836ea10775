"""moescope recover: keep what a cut-off trace had committed."""

from pathlib import Path

import click


@click.command(name="recover")
@click.argument("store", type=click.Path(path_type=Path))
def command(store: Path) -> None:
    """Join the runs that were cut off to STORE as they are (status `interrupted`); they cannot be resumed afterwards."""
    from ..store.merge import ensure_store, merge
    from ..store.parts import parts

    ensure_store(store)
    dead = [part for part in parts(store) if not part.alive()]
    for part in dead:
        number = merge(store, part, {"status": "interrupted", "progress": part.progress})
        click.echo(f"run {number} of {store}: {len(part.shards)} committed shards joined")
    if not dead:
        click.echo(f"{store} has no run that was cut off")
