"""moescope report: every analysis of a store on one page."""

from pathlib import Path

import click

from ._support.options import FILE, RUN, TEXT


@click.command(name="report")
@click.argument("store", type=FILE)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The page to write; default: STORE with .html.")
@click.option("--overwrite", is_flag=True, help="Also over a file that is no such page (never over a store).")
@click.option("--run", type=RUN, help="Which run; default: the newest complete one.")
@click.option("--title", type=TEXT, help="Heading of the page.")
def command(store: Path, output: Path | None, overwrite: bool, run: int | None, title: str | None) -> None:
    """Write one self-contained HTML page about STORE: figures, how to read them, and the SQL behind each."""
    from ..analyses import catalogue, run_all
    from ..analyses._shared.report_page import MARK, page
    from ..analyses._shared.scope import scope
    from ..store.described import described
    from ..store.files.outputs import check_output
    from ..store.files.outputs import output as written
    from ._support.reading import reading

    output = output or store.with_suffix(".html")
    check_output(output, overwrite, MARK.encode())
    entries = {entry["name"]: entry for entry in catalogue()}
    with reading(store) as opened:
        here = scope(opened, run)
        model, data, tokens = opened.rows(
            "select m.name, dataset, r.tokens from runs r join models m using (model) where run = ?", [here.run]
        )[0]
        routing = described(opened, here.run)
        answers, notes = [], []
        for name, answer in run_all(opened, here.run):
            notes.append(f"{name}: {'answered' if not isinstance(answer, Exception) else answer}")
            answers.append((entries[name], answer))
    words = f"Run {here.run} of {store.name}: {model} on {data or 'unnamed data'}, {tokens:,} tokens."
    words += "" if routing.plain else f" Routing: {routing.words}."
    with written(output, overwrite, MARK.encode()) as file:
        file.write(page(title or f"Routing of {model}", words, answers).encode())
    click.echo("\n".join(notes), err=True)
    click.echo(output)
