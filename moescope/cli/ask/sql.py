"""moescope sql: one query over a store."""

import sys
from pathlib import Path
from typing import Any

import click

from .._support.options import STORE, TEXT


@click.command(name="sql")
@click.argument("store", type=STORE)
@click.argument("query", type=TEXT)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write there instead of to the screen.")
@click.option("--overwrite", is_flag=True, help="Also over a file that is there (never over a store).")
@click.option(
    "--raw", is_flag=True, help="CSV with text as it is; else text that a spreadsheet takes for a formula gets a ' in front."
)
@click.option("--allow-external", is_flag=True, help="Let the query reach other files and the network.")
@click.option("--engine", type=click.Choice(["ray", "spark"]), help="Who counts over large tables: all cores, or a cluster.")
@click.option("--address", type=TEXT, help="Of the cluster: auto, HOST:PORT (Ray), spark://HOST:PORT; else on this machine.")
def command(
    store: Path,
    query: str,
    form: str,
    output: Path | None,
    overwrite: bool,
    raw: bool,
    allow_external: bool,
    engine: str | None,
    address: str | None,
) -> None:
    """Ask STORE one SQL QUERY; `moescope info STORE` lists tables and views.

    The query reaches nothing but the store, and nothing in the store is changed.
    """
    import duckdb

    from ...store.files.outputs import check_output
    from .._support.reading import reading
    from .._support.statements import interruptible, one_question, unanswered

    question = query if allow_external else one_question(query)
    if output is not None:
        check_output(output, overwrite)
    with reading(store, external=allow_external, comments=True, engine=engine, address=address) as opened:
        try:
            relation = opened.sql(question)
            if relation is None:
                return
            interruptible(opened.con, lambda: _write(relation, form, output, overwrite, raw))
        except duckdb.Error as error:
            raise unanswered(error) from error


def _write(relation: Any, form: str, path: Path | None, overwrite: bool, raw: bool) -> None:
    from ...errors import InputError
    from ...store.files.exports import export
    from ...store.files.outputs import output

    if path is None:
        if form == "parquet" and sys.stdout.isatty():
            raise InputError("parquet is no text; say where with --output FILE, or redirect it")
        if form == "table":
            click.echo(_table(relation), nl=False)
        else:
            export(relation, form, sys.stdout.buffer, raw)
        return
    with output(path, overwrite) as file:
        if form == "table":
            file.write(_table(relation).encode())
        else:
            export(relation, form, file, raw)


def _table(relation: Any, most: int = 1000) -> str:
    rows = relation.limit(most + 1).fetchall()
    cells = [[("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row] for row in rows[:most]]
    cells = [[c.replace("\n", "\\n").replace("\t", "\\t") for c in row] for row in cells]
    names = list(relation.columns)
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    table = [names, ["-" * w for w in widths], *cells]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in table]
    more = f"(the first {most} rows; --format csv gives all)\n" if len(rows) > most else ""
    return "\n".join(lines) + "\n" + more
