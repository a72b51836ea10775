"""moescope families: which MoE families of the installed Transformers are proved, shown on each here and now."""

import json

import click

from .._support.options import TEXT


@click.command(name="families")
@click.argument("names", nargs=-1, type=TEXT, metavar="[FAMILY]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@click.option("--markdown", is_flag=True, help="The table of the README.")
@click.option("--systems", "by_system", is_flag=True, help="Routing systems by name, in packages and small models of our own.")
def command(names: tuple[str, ...], as_json: bool, markdown: bool, by_system: bool) -> None:
    """Build every family tiny, trace it, prove it, and say how its routers work; exit 1 if one is not proved.

    All 75 of Transformers 5.23 take about half a minute; give names for a few. With --systems the routing systems of the
    literature instead; those whose package is not installed are said to be so, and are no failure.
    """
    if by_system:
        _systems(names, as_json, markdown)
        return
    from ...proof.families import Family, families
    from ...proof.table import as_markdown, line, summary

    rows: list[Family] = []
    for family in families(names):
        rows.append(family)
        if not as_json and not markdown:
            click.echo(line(family))
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        click.echo(as_markdown(rows) if markdown else summary(rows))
    if not all(row.proved for row in rows):
        raise SystemExit(1)


def _systems(names: tuple[str, ...], as_json: bool, markdown: bool) -> None:
    from ...proof.systems import Row, systems
    from ...proof.table import system_line, systems_markdown

    rows: list[Row] = []
    for row in systems(names):
        rows.append(row)
        if not as_json and not markdown:
            click.echo(system_line(row))
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=1))
    elif markdown:
        click.echo(systems_markdown(rows))
    if any(row.failed for row in rows):
        raise SystemExit(1)
