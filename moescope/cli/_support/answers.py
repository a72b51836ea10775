"""An answer on the terminal: the verdict, the rows that carry it, what to ask next, and how to get the rest."""

import shlex
from pathlib import Path
from typing import Any

import click
import pandas as pd

LEFT_OUT = ("null", "source", "router")  # of the whole table: words, and a key of the store


def show(answer: Any, store: Path, whole: bool = False) -> None:
    """The answer in a handful of rows, or with `whole` in all of them."""
    click.echo(f"\n{answer.title}, run {answer.run}")
    if answer.chosen:
        click.echo(answer.chosen)
    click.echo(f"\n{answer.verdict.sentence}\n")
    _whole(answer) if whole else _handful(answer, store)
    for note in answer.notes:
        click.echo(f"* {note}")


def _whole(answer: Any) -> None:
    click.echo(table(answer.frames["figures"].drop(columns=list(LEFT_OUT))))


def table(frame: pd.DataFrame) -> str:
    """Rows of numbers and words, numbers to four figures, nothing where there is none."""
    return str(frame.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}"))


def _handful(answer: Any, store: Path) -> None:
    rows = answer.verdict.rows
    if len(rows):
        click.echo(_aligned(_carrying(rows, answer.frames["figures"])))
        click.echo()
    if answer.verdict.ask:
        click.echo(f"Next:     {answer.verdict.ask}")
    again = f"moescope analyze {answer.name} {shlex.quote(str(store))} --run {answer.run}"
    others = "".join(f", {name} ({len(frame)} rows)" for name, frame in answer.frames.items() if name != "figures")
    click.echo(f"The rest: {again} --table ({len(answer.frames['figures'])} figures); with --json also the SQL{others}")


def _carrying(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """What a reader needs of figures; columns that would say nothing are left out."""
    from ...analyses._shared.verdicts import saying

    made = pd.DataFrame([_row(row, frame, saying) for _, row in rows.iterrows()])
    return made.loc[:, (made != "").any()]


def _aligned(frame: pd.DataFrame) -> str:
    """Columns of text under their names, on the left."""
    columns = [[name, *frame[name]] for name in frame]
    wide = [[text.ljust(max(map(len, column))) for text in column] for column in columns]
    return "\n".join("  ".join(row).rstrip() for row in zip(*wide))


def _row(row: Any, frame: pd.DataFrame, saying: Any) -> dict[str, str]:
    where = saying.expert(row, frame) if pd.notna(row["expert"]) else saying.layer(row, frame)
    low, high = (float(row[c]) if pd.notna(row[c]) else float("nan") for c in ("ci_low", "ci_high"))
    value, known = float(row["value"]), low == low and high == high
    q = "q" if pd.notna(row["q"]) else "p"
    return {
        "figure": row["name"] if row["estimator"] in ("", "definition") else f"{row['name']}, {row['estimator']}",
        "of": row["subset"],
        "where": where,
        "value": saying.number(value, low, high),
        "95 % interval": saying.interval(value, low, high) if known else "",
        "null": saying.number(float(row["null_mean"])) if pd.notna(row["null_mean"]) else "",
        "q": saying.chance_of(row, q).removeprefix(f"{q} ").removeprefix("= ") if pd.notna(row[q]) else "",
        "documents": "" if pd.isna(row["units"]) else f"{row['units']:,}",
    }
