"""moescope report: every analysis of a store on one page."""

from pathlib import Path
from typing import Any

import click

from .._support.options import RUN, STORE, TEXT


@click.command(name="report")
@click.argument("store", type=STORE)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The page to write; default: STORE with .html, here if it lies elsewhere.",
)
@click.option("--overwrite", is_flag=True, help="Also over a file that is no such page (never over a store).")
@click.option("--run", "runs", type=RUN, multiple=True, help="Which run, of several again; default: all that are complete.")
@click.option("--title", type=TEXT, help="Heading of the page.")
@click.option(
    "--theme", type=click.Choice(["auto", "light", "dark"]), default="auto", show_default=True, help="Ground of the page."
)
def command(store: Path, output: Path | None, overwrite: bool, runs: tuple[int, ...], title: str | None, theme: str) -> None:
    """Write one self-contained HTML page about STORE: what was found, figures, the SQL behind each; made to be printed."""
    from ...analyses._shared.report_page import MARK, page
    from ...store.files.outputs import check_output
    from ...store.files.outputs import output as written
    from ...store.remote.addresses import called, mirror_of
    from .._support.reading import reading

    output = output or (store if mirror_of(store) is None else Path(called(store))).with_suffix(".html")
    check_output(output, overwrite, MARK.encode())
    with reading(store) as opened:
        found = [_report(opened, run) for run in _asked(opened, runs)]
    words = f"{called(store)}. " + (found[0].words if len(found) == 1 else f"{len(found)} runs, each by itself.")
    text = page(title or _title(found), words, found, theme)
    with written(output, overwrite, MARK.encode()) as file:
        file.write(text.encode())
    click.echo(output)


def _asked(opened: Any, runs: tuple[int, ...]) -> list[int]:
    """The runs that are named, each once, or all complete ones (the newest where none is)."""
    from ...analyses._shared.scope import scope

    if runs:
        return [scope(opened, run).run for run in dict.fromkeys(runs)]
    complete = [run for (run,) in opened.rows("select run from runs where status = 'complete' order by run")]
    return complete or [scope(opened, None).run]


def _title(found: list[Any]) -> str:
    return f"Routing of {found[0].name.partition(': ')[2]}" if len(found) == 1 else "Routing"


def _report(opened: Any, run: int) -> Any:
    """Everything that can be said of one run; what is asked goes to standard error."""
    from ...analyses import catalogue, run_all
    from ...analyses._shared.report_page import Report
    from ...store.described import described

    name, model, data, tokens = opened.rows(
        "select r.name, m.name, dataset, r.tokens from runs r left join models m using (model) where run = ?", [run]
    )[0]
    routing = described(opened, run)
    words = f"Run {run}: {model} on {data or 'unnamed data'}, {tokens or 0:,} tokens."
    words += "" if routing.plain else f" Routing: {routing.words}."
    entries, answers = {entry["name"]: entry for entry in catalogue()}, []
    for asked, answer in run_all(opened, run):
        said = "answered" if not isinstance(answer, Exception) else answer
        click.echo(f"run {run}, {asked}: {said}", err=True)
        answers.append((entries[asked], _portable(answer, opened.path)))
    return Report(f"Run {run}: {name or model}", words, answers, _pictures(opened, run), run, _notes(opened, run))


def _portable(answer: Any, store: Path) -> Any:
    """A refusal with the store by its name alone: where it lies here is nothing to whoever the page is sent to."""
    from ...store.remote.addresses import called

    return type(answer)(str(answer).replace(f"{store}", called(store))) if isinstance(answer, Exception) else answer


def _notes(opened: Any, run: int) -> list[Any]:
    """What the user wrote on it; a file of notes that cannot be read is said, and the report is made without."""
    from ...errors import StoreError
    from ...store import notes

    try:
        return notes.of_run(opened, run)
    except StoreError as error:
        click.echo(f"run {run}, notes: {error}", err=True)
        return []


def _pictures(opened: Any, run: int) -> list[Any]:
    """The map of load, where something was routed; of what was asked for and of what ran, where some was dropped."""
    from ...errors import InputError
    from ...show import demand, load

    def ask(sql: str, *params: object) -> Any:
        return opened.sql(sql, params).df()

    try:
        return [part for way in demand.ways(ask, run) for part in load(opened, run, counted=way).parts]
    except InputError:
        return []
