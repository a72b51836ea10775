"""moescope analyze: ask one analysis, or all of them."""

import json
from pathlib import Path
from typing import Any

import click

from .._support.options import RUN, STORE, TEXT, settings_of


@click.command(name="analyze")
@click.argument("names", nargs=-1, type=TEXT, metavar="[NAME] [STORE]")
@click.option("--list", "listed", is_flag=True, help="Say which analyses there are.")
@click.option("--all", "every", is_flag=True, help="Ask every analysis that needs no option.")
@click.option("--table", is_flag=True, help="Every figure, in place of those that carry the verdict.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--run", type=RUN, help="Which run; default: the newest that can answer.")
@settings_of("An option of the analysis, e.g. by=genre.")
@click.option("--save", is_flag=True, help="Write the figures into the store, as rows of its table measures.")
@click.option("--fresh", is_flag=True, help="Compute again what was computed before (MOESCOPE_CACHE=off keeps nothing).")
@click.option("--engine", type=click.Choice(["ray", "spark"]), help="Who counts over large tables: all cores, or a cluster.")
@click.option("--address", type=TEXT, help="Of the cluster: auto, HOST:PORT (Ray), spark://HOST:PORT; else on this machine.")
def command(
    names: tuple[str, ...],
    listed: bool,
    every: bool,
    table: bool,
    as_json: bool,
    run: int | None,
    options: dict[str, Any],
    save: bool,
    fresh: bool,
    engine: str | None,
    address: str | None,
) -> None:
    """Ask the analysis NAME about STORE: a verdict, and the figures that carry it with null, interval and q.

    \b
    moescope analyze --list
    moescope analyze load run.duckdb
    moescope analyze --all run.duckdb
    """
    from ...analyses import Answer
    from ...analyses._shared.saving import save as keep
    from ...errors import AnalysisError
    from .._support.answers import show

    if listed:
        from ...analyses import catalogue
        from .._support.catalogue import tell_catalogue

        tell_catalogue(catalogue(), as_json)
        return
    store, asked = _ask(names, every, run, options, fresh, engine=engine, address=address)
    answers = {name: answer for name, answer in asked if isinstance(answer, Answer)}
    refused = {name: str(why) for name, why in asked if not isinstance(why, Answer)}
    if as_json:
        found: Any = {name: answer.to_json() for name, answer in answers.items()}
        click.echo(json.dumps({"answers": found, "refused": refused} if every else next(iter(found.values())), default=str))
    else:
        for answer in answers.values():
            show(answer, store, table)
        for name, why in refused.items():
            click.echo(f"\n{name}: {why}")
    for answer in answers.values() if save else []:
        click.echo(f"{keep(store, answer)} rows of {answer.name} are in measures", err=True)
    if not answers:
        raise AnalysisError(f"no analysis could say anything about {store}")


def _ask(
    names: tuple[str, ...], every: bool, run: int | None, options: dict[str, Any], fresh: bool, **engine: str | None
) -> tuple[Path, list[tuple[str, Any]]]:
    from ...analyses import catalogue, run_all
    from ...analyses import run as ask
    from ...errors import InputError
    from .._support.reading import reading

    if len(names) != (1 if every else 2):
        known = ", ".join(entry["name"] for entry in catalogue())
        raise InputError(f"say moescope analyze NAME STORE, or moescope analyze --all STORE; the analyses are: {known}")
    if own := options.keys() & {"name", "store", "run", "fresh"}:
        raise InputError(f"{min(own)} is no option of an analysis; the store is an argument, and the run is --run")
    store = STORE.convert(names[-1], None, None)
    with reading(store, **engine) as opened:
        if every:
            return store, list(run_all(opened, run, fresh))
        return store, [(names[0], ask(names[0], opened, run, fresh=fresh, **options))]
