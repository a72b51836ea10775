"""moescope experiment: questions that take the model itself, on the inputs of a run."""

from pathlib import Path
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import RUN, STORE, TEXT, settings_of


@click.command(name="experiment")
@click.argument("names", nargs=-1, type=TEXT, metavar="[NAME MODEL STORE]")
@click.option("--list", "listed", is_flag=True, help="Say which experiments there are.")
@click.option("--json", "as_json", is_flag=True, help="The figures, as one JSON list.")
@click.option("--run", type=RUN, help="Which run of STORE; default: the last complete one of MODEL.")
@settings_of("An option of the experiment, e.g. tokens=64.")
@loads
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def command(
    names: tuple[str, ...], listed: bool, as_json: bool, run: int | None, options: dict[str, Any], quiet: bool, **load: Any
) -> None:
    """Make the experiment NAME with MODEL on the inputs of a run in STORE; its figures are kept there (table measures).

    \b
    moescope experiment --list
    moescope experiment regret mixtral run.duckdb -p tokens=64
    moescope analyze regret run.duckdb                          what was kept, with nulls and intervals
    """
    if listed:
        from ...interventions.experiments import catalogue
        from .._support.catalogue import tell_catalogue

        tell_catalogue(catalogue(), as_json)
        return
    from ...errors import InputError
    from ...interventions import experiments
    from ...models.loading import load as load_model
    from ...store.write.change import check_target
    from .._support.many import alone

    if len(names) != 3:
        known = ", ".join(entry["name"] for entry in experiments.catalogue())
        raise InputError(f"say moescope experiment NAME MODEL STORE; the experiments are: {known}")
    if own := options.keys() & {"name", "loaded", "store", "run", "report"}:
        raise InputError(f"{min(own)} is no option of an experiment; model and store are arguments, and the run is --run")
    name, model, store = names[0], names[1], STORE.convert(names[2], None, None)
    alone("experiment with the whole model and write into one store: start one process")
    module = experiments.checked(name, options)
    if not store.exists():
        raise InputError(f"there is no store {store}; make it with moescope trace {model} --data DATA --store {store}")
    check_target(store)
    loaded = load_model(model, **loading(load, quiet))
    found = _made(experiments, name, loaded, store, run, options, quiet)
    if as_json:
        click.echo(found.figures.to_json(orient="records"))
    elif not quiet:
        kept = f"{len(found.figures)} figures are kept:  moescope analyze {module.ANALYSIS} {store}"
        click.echo(found.said or kept)


def _made(experiments: Any, name: str, loaded: Any, store: Path, run: int | None, options: dict[str, Any], quiet: bool) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=None)
        report = lambda done, of: progress.update(task, completed=done, total=of)  # noqa: E731
        return experiments.experiment(name, loaded, store, run, report, **options)
