"""moescope verify: is a store sound?"""

from pathlib import Path

import click

from .._support.options import STORE


@click.command(name="verify")
@click.argument("store", type=STORE)
@click.option("--quiet", "-q", is_flag=True, help="Only what is broken.")
def command(store: Path, quiet: bool) -> None:
    """Check every byte of STORE, its references and arithmetic; exit 0 when it is sound, 1 when it is damaged or a rule broken.

    Of a damaged store it says what can still be read.
    """
    from ...store.integrity.damage import examine
    from ...store.integrity.verify import verify
    from .._support.reading import reading

    damage = examine(store)
    for fault in [*damage.faults, *(f"{table}: {why}" for table, why in damage.unreadable.items())]:
        click.echo(f"damaged  {fault}")
    if damage.note and not quiet:
        click.echo(f"note    {damage.note}")
    if damage:
        if damage.unreadable and damage.readable:
            click.echo(f"readable  {', '.join(damage.readable)}")
        click.echo(f"{store} is damaged: {damage}")
        raise SystemExit(1)
    with reading(store) as opened:
        checks = verify(opened)
    broken = [check for check in checks if check.broken]
    for check in checks if not quiet else broken:
        click.echo(
            f"{'broken' if check.broken else 'ok    '}  {check.rule}" + (f": {check.broken} rows" if check.broken else "")
        )
    click.echo(f"{store} is {'NOT sound' if broken else 'sound'}: {len(checks) - len(broken)} of {len(checks)} checks hold")
    if broken:
        raise SystemExit(1)
