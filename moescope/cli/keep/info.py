"""moescope info: what is in a store."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .._support.options import STORE


@click.command(name="info")
@click.argument("store", type=STORE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(store: Path, as_json: bool) -> None:
    """Say what STORE holds: its runs, finished or not, and its tables and views."""
    from ...store.described import described
    from ...store.schema import view_comments
    from .._support.reading import reading

    with reading(store) as opened:
        runs = opened.sql(
            "select r.run, r.uid, r.name, m.name as model, m.family, r.dataset, r.status, r.started, r.forwards, r.sequences, "
            "r.tokens, r.decisions, r.assignments, r.progress, r.warnings, "
            "(select count(*) from routers q where q.run = r.run) as routers "
            "from runs r join models m using (model) order by run"
        ).df()
        aside = [str(thing) for thing in opened.aside]
        routing = {run: described(opened, run) for run in runs["run"].tolist()}
    views = view_comments()
    found = json.loads(runs.to_json(orient="records", date_format="iso"))
    for run in found:
        run |= {key: json.loads(run[key]) if run[key] else None for key in ("progress", "warnings")}
        run |= asdict(routing[run["run"]])
    size = store.stat().st_size
    if as_json:
        click.echo(json.dumps({"store": str(store), "bytes": size, "runs": found, "aside": aside, "views": views}, indent=1))
        return
    click.echo(f"{store}: {len(found)} runs, {size / 1e6:.1f} MB")
    for run in found:
        click.echo(_line(run))
        if not routing[run["run"]].plain:
            click.echo(f"    {routing[run['run']].words}")
    click.echo("views:")
    for name, comment in views.items():
        click.echo(f"  {name:16} {comment}")


def _line(run: dict[str, Any]) -> str:
    progress = run["progress"] or {}
    decided = f"{run['decisions'] or 0:,} decisions" if run["routers"] else "no router (states of recursive modules)"
    counts = f"{decided}, {run['tokens'] or 0:,} tokens"
    text = f"  run {run['run']}  {run['model']} on {run['dataset']}: {counts}"
    if run["status"] == "complete":
        return text
    how_far = f", {progress['sequences']} of {progress['total']} sequences" if progress.get("total") else ""
    rest = "still being traced" if run["status"] == "running" else "go on with --resume, or keep it: moescope recover"
    return f"{text} — {run['status']}{how_far}; {rest}"
