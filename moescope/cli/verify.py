"""moescope verify: is a store sound?"""

from pathlib import Path

import click

from ._options import FILE


@click.command(name="verify")
@click.argument("store", type=FILE)
@click.option("--quiet", "-q", is_flag=True, help="Only what is broken.")
def command(store: Path, quiet: bool) -> None:
    """Check references and arithmetic of STORE; exit 0 when it is sound, 1 when a rule is broken."""
    from ..store import open_store
    from ..store.verify import verify

    with open_store(store) as opened:
        checks = verify(opened)
    broken = [check for check in checks if check.broken]
    for check in checks if not quiet else broken:
        click.echo(
            f"{'broken' if check.broken else 'ok    '}  {check.rule}" + (f": {check.broken} rows" if check.broken else "")
        )
    click.echo(f"{store} is {'NOT sound' if broken else 'sound'}: {len(checks) - len(broken)} of {len(checks)} checks hold")
    if broken:
        raise SystemExit(1)
