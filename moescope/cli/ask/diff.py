"""moescope diff: two runs of the same texts: which decisions changed, where, how near the edge."""

from pathlib import Path
from typing import Any

import click

from .._support.options import COUNT, RUN, STORE


@click.command(name="diff")
@click.argument("first", type=STORE, metavar="STORE")
@click.argument("second", type=STORE, metavar="[STORE]", required=False)
@click.option("--run", type=RUN, help="Of the first store; default: its newest.")
@click.option("--other", type=RUN, help="Of the second store (of the only one: an earlier run of the same texts).")
@click.option("--most", type=COUNT, default=20, show_default=True, help="Changed decisions that are shown.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def command(first: Path, second: Path | None, run: int | None, other: int | None, most: int, as_json: bool) -> None:
    """Compare two runs, such as what an engine served with a trace of the same texts (train-inference mismatch).

    Tokens are the same in the same place of the same input, or behind the same ids. It says how many decisions chose another
    set of experts, layer by layer and by margin, for which tokens, and shows those that were surest.
    """
    import json

    from ...analyses import run as ask
    from .._support.answers import table
    from .._support.reading import reading

    with reading(first) as store:
        named: dict[str, Any] = {"other": other, "beside": None if second is None else str(second)}
        answer = ask("diff", store, run, **{name: value for name, value in named.items() if value is not None})
    if as_json:
        click.echo(json.dumps(answer.to_json(), default=str))
        return
    click.echo(f"{answer.verdict.sentence}\n")
    figures = answer.frames["figures"]
    shown = figures[["name", "stack", "layer", "subset", "value", "ci_low", "ci_high", "chance", "n"]]
    click.echo(table(shown))
    decisions = answer.frames["decisions"].head(most)
    if len(decisions):
        columns = ["layer", "sequence", "position", "text", "experts", "other", "margin"]
        click.echo("\nchanged decisions, the surest first\n" + table(decisions[columns]))
    for note in answer.notes:
        click.echo(f"* {note}")
