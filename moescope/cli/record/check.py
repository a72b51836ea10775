"""moescope check: prove that a model's routers are recorded as executed."""

import json
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import TEXT


@click.command(name="check")
@click.argument("model", type=TEXT)
@loads
@click.option("--dry-run", is_flag=True, help="Only say what loading takes and where it goes; config.json is enough.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def command(model: str, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Find the routers of MODEL and prove each; exit 1 with the reason if one fails. Nothing is written."""
    from dataclasses import asdict

    from ...contracts import find
    from ...models.loading import load, taking
    from ...proof import example_inputs, prove

    how = loading(options)
    if dry_run:
        click.echo(taking(model, **how))
        return
    loaded = load(model, **how)
    sites = find(loaded.model)
    proved = prove(loaded.model, sites, example_inputs(loaded.model))
    for note in [*loaded.notes, *proved.left_out]:
        click.echo(f"moescope: {note}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(p) for p in proved], indent=1))
        return
    for site, p in zip(sites, proved):
        back = "written back bit for bit" if p.identical else p.note
        what = f"{p.contract}, top-{site.top_k} of {site.n_experts}, {site.score or 'score unknown'}"
        click.echo(f"proved  {p.router}: {what} ({p.rows} rows, recomputed to {p.error:.0e}, {back})")
    click.echo(f"{len(proved)} of {len(sites)} routers of {model} are recorded as executed")
