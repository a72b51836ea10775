"""moescope pack: one file of a store whose large runs lie beside it."""

from pathlib import Path

import click

from .._support.options import STORE


@click.command(name="pack")
@click.argument("store", type=STORE)
def command(store: Path) -> None:
    """Bring the rows of large runs, which lie in STORE.parts, into STORE: one file, to mail or to keep.

    It takes room for the whole store, and time by its size; readers and traces are not in the way, and what is cut off leaves
    the store as it was.
    """
    from ...store.connect import check_store
    from ...store.write.pack import pack
    from ...words import listed

    check_store(store)
    runs = pack(store)
    if not runs:
        click.echo(f"{store} is one file already")
    else:
        said = listed([f"run {run}" for run in runs])
        click.echo(f"{said} brought into {store}, which is one file now ({store.stat().st_size / 1e6:,.1f} MB)")
