"""moescope sql: one query over a store."""

import sys
from pathlib import Path
from typing import Any

import click

from ._options import FILE, TEXT


@click.command(name="sql")
@click.argument("store", type=FILE)
@click.argument("query", type=TEXT)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write there instead of to the screen.")
def command(store: Path, query: str, form: str, output: Path | None) -> None:
    """Ask STORE one SQL QUERY; `moescope info STORE` lists tables and views."""
    import duckdb

    from ..store import open_store
    from ._statements import interruptible, one_question, unanswered

    question = one_question(query)
    with open_store(store) as opened:
        try:
            relation = opened.sql(question)
            if relation is None:
                return
            interruptible(opened.con, lambda: _write(relation, form, output))
        except duckdb.Error as error:
            raise unanswered(error) from error


def _write(relation: Any, form: str, output: Path | None) -> None:
    from ..errors import InputError

    if form == "parquet":
        if output is None and sys.stdout.isatty():
            raise InputError("parquet is no text; say where with --output FILE, or redirect it")
        import pyarrow.parquet as pq

        pq.write_table(relation.to_arrow_table(), str(output) if output else sys.stdout.buffer)
        return
    text = _text(relation, form)
    output.write_text(text) if output else click.echo(text, nl=False)


def _text(relation: Any, form: str) -> str:
    if form == "table":
        return _table(relation)
    frame = relation.df()
    if form == "csv":
        return frame.to_csv(index=False)
    return frame.to_json(orient="records", date_format="iso", default_handler=str, indent=1) + "\n"


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
