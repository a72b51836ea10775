"""moescope export: pages of the dashboard, and their pictures, as files."""

from pathlib import Path
from typing import Any

import click

from .._support.options import NONE_OR_MORE, RUN, STORE, TEXT

PICTURES = {"tokens": "tokens", "load": "load", "experts": "experts", "structure": "flow"}  # page: its picture in moescope.show
KINDS = ("html", "png", "svg", "pdf")


@click.command(name="export")
@click.argument("store", type=STORE)
@click.argument("pages", type=TEXT, nargs=-1, required=True, metavar="PAGE...")
@click.option(
    "--format",
    "kind",
    type=click.Choice(KINDS),
    default="html",
    show_default=True,
    help="png, svg and pdf: of the page's picture.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The file to write, of one page; default: a name that says what is in it.",
)
@click.option("--overwrite", is_flag=True, help="Also over a file that is no such page (never over a store).")
@click.option("--run", type=RUN, help="Which run; default: the newest complete one.")
@click.option("--layer", type=TEXT, help="Which layer: its number, or its name.")
@click.option("--expert", type=NONE_OR_MORE, help="Which expert of the layer.")
@click.option("--sequence", type=NONE_OR_MORE, help="Which sequence, by its key.")
@click.option("--token", type=NONE_OR_MORE, help="Which token is chosen, by its key.")
@click.option("--dark", is_flag=True, help="Pictures on dark ground.")
def command(
    store: Path, pages: tuple[str, ...], kind: str, output: Path | None, overwrite: bool, run: int | None, layer: str | None,
    expert: int | None, sequence: int | None, token: int | None, dark: bool,
) -> None:  # fmt: skip
    """Write each PAGE of the dashboard over STORE as a file that needs no server.

    A PAGE is a name such as load, or a copied link of the dashboard, whose state is kept.

    \b
    moescope export run.duckdb load experts --run 0
    moescope export run.duckdb "tokens?run=0&layer=layer+2&sequence=3"
    moescope export run.duckdb tokens --sequence 3 --layer 2 --format svg
    """
    from ...errors import InputError
    from ...pictures.page import MARK
    from ...store.files.outputs import check_output
    from ...store.files.outputs import output as written
    from .._support import exported

    if output is not None and len(pages) > 1:
        raise InputError(f"--output names one file and {len(pages)} pages are asked for; leave it out, or ask for one page")
    if dark and kind == "html":
        raise InputError("--dark is for png, svg and pdf; a page of html follows the ground of whoever reads it")
    asked: dict[str, Any] = {"run": run, "layer": layer, "expert": expert, "sequence": sequence, "token": token}
    wanted = [exported.Wanted.of(page, asked) for page in pages]
    for page in wanted:
        if kind != "html" and page.name not in PICTURES:
            raise InputError(f"the page {page.name} has no single picture; export it as html, or one of: {', '.join(PICTURES)}")
    found = exported.settled(store, wanted)
    places = [output or Path(f"{page.stem}.{kind}") for page in found]
    for place in places:
        check_output(place, overwrite, MARK.encode())
    for page, place in zip(found, places, strict=True):
        content = (
            exported.page(store, page) if kind == "html" else exported.picture(store, page, PICTURES[page.name], kind, dark)
        )
        with written(place, overwrite, MARK.encode()) as file:
            file.write(content)
        click.echo(place)
