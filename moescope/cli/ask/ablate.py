"""moescope ablate: what the model loses without some of its experts, and on what."""

from pathlib import Path
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import BATCH, COUNT, NAMES, RUN, SEED, STORE, TEXT, Whole, read_with


def _experts(text: str) -> Any:
    from ...interventions import parse

    return parse(text)


@click.command(name="ablate")
@click.argument("model", type=TEXT)
@click.option("--store", required=True, type=STORE, help="A store with a trace of MODEL; the effects go there.")
@click.option("--data", type=TEXT, help="Traced first where the store has no run of MODEL; and where images come from.")
@click.option(
    "--experts",
    callback=read_with(_experts),
    help="LAYER:EXPERTS, such as 3:5,7 or 'decoder.3:0-3 5' (a layer alone: all its experts).",
)
@click.option("--sweep", is_flag=True, help="Each expert alone: all of the model, or those of --experts. Without: one set.")
@click.option("--mode", default="route-around", show_default=True, type=click.Choice(["route-around", "zero", "mean"]),
              help="The next best runs; nothing runs; its mean contribution.")  # fmt: skip
@click.option("--by", callback=NAMES, help="Groups: label kinds of the store such as domain,upos,class, and position, token.")
@click.option("--at", default="target", show_default=True, type=click.Choice(["target", "input"]),
              help="Count a loss to the token predicted, or to the one read.")  # fmt: skip
@click.option("--controls", default=3, show_default=True, type=Whole(0, 1000), help="Random sets beside the one of equal load.")
@click.option("--run", type=RUN, help="Which run of the store; else the last complete one of MODEL.")
@click.option("--limit", type=COUNT, help="Examples to trace, where --data is traced first.")
@click.option("--batch-size", default=8, show_default=True, type=BATCH, help="Of that trace.")
@click.option("--classes", callback=NAMES, help="Image models: class labels in the order of the model's outputs.")
@click.option("--plain", is_flag=True, help="Compute every forward pass whole.")
@click.option("--seed", default=0, show_default=True, type=SEED)
@loads
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
def command(model: str, store: Path, data: str | None, quiet: bool, **options: Any) -> None:
    """Ablate experts of MODEL on the inputs of a run in STORE, and keep the effects there (view ablation_effects).

    A sweep that was cut off goes on where it stopped when the same command is given again.
    """
    from ...contracts import find
    from ...inputs import read
    from ...interventions import ablate
    from ...interventions.ablation.plan import wanted
    from ...models.loading import load
    from ...routers.engine_block import check_here
    from ...tracer import check_plan
    from .._support.many import alone

    alone("ablate the whole model and write into one store: start one process")
    check_plan(store, seed=options["seed"], limit=options["limit"], batch_size=options["batch_size"])
    loaded = load(model, **loading(options, quiet))
    check_here(loaded.model, "ablate it")
    limit, batch_size = options.pop("limit"), options.pop("batch_size")
    wanted(find(loaded.model), options["experts"], options["sweep"])  # before a baseline is traced for what cannot be done
    _traced(loaded, store, data, options["run"], limit, batch_size)
    images = read(data) if data is not None and loaded.reads == "image" else None
    asked, by, classes = options.pop("experts"), options.pop("by") or [], options.pop("classes") or []
    bar = _Bar(quiet)
    with bar:
        rows = ablate(
            loaded,
            store,
            asked,
            by=by,
            data=images,
            classes=classes,
            share=not options.pop("plain"),
            report=bar.show,
            **options,
        )
    if not quiet:
        _summary(rows, store)


def _traced(loaded: Any, store: Path, data: str | None, run: int | None, limit: int | None, batch_size: int) -> None:
    """Trace the baseline where there is none and there is data for it."""
    from ...errors import InputError
    from ...interventions.ablation.rows import baseline
    from ...store import open_store
    from ...tracer import trace

    if store.exists():
        try:
            with open_store(store) as opened:
                baseline(opened, loaded.model, run)
            return
        except InputError:
            if run is not None or data is None:
                raise
    elif data is None:
        raise InputError(f"there is no store {store}; give --data, and a baseline is traced into it first")
    assert data is not None
    trace(loaded, data, store, limit=limit, batch_size=batch_size, name="baseline")


class _Bar:
    """Batches done of all, on standard error."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            TextColumn("ablating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[sets]}"),
            TimeRemainingColumn(),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task("ablate", total=None, sets="")

    def show(self, progress: dict[str, Any]) -> None:
        """Update from what `ablate` reports after each batch."""
        self._progress.start()
        self._progress.update(
            self._task, completed=progress["batches"], total=progress["total"], sets=f"batches × {progress['sets']} sets"
        )

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:  # else it would print an empty line
            self._progress.stop()


def _summary(rows: Any, store: Path, most: int = 12) -> None:
    """The largest effects over all tokens, and by group those that stand out of their controls."""
    plain = rows[(rows["control"] == "none")]
    whole = plain[plain["group_kind"] == "all"].sort_values("delta_nll", ascending=False)
    click.echo(f"{len(whole)} sets, {rows['mode'].iloc[0]}; change of the loss in nats per token, 95 % over documents")
    for row in whole.head(most).itertuples():
        click.echo(f"  {row.experts}  {_said(row.delta_nll, row.ci_low, row.ci_high)}  load {row.load:.1%}  q {row.q:.2g}")
    groups = _needed(rows)
    if len(groups):
        click.echo("needed by a group, and more than experts of equal load are (both q < 0.05):")
    for row in groups.head(most).itertuples():
        own = _said(row.delta_nll_own, row.ci_low_own, row.ci_high_own)
        beyond = _said(row.delta_nll, row.ci_low, row.ci_high)
        click.echo(f"  {row.experts}  {row.group_kind} {row.group}: {own}, of which beyond equal load {beyond}")
    click.echo(f"{len(rows)} rows:  moescope sql {store} \"from ablation_effects where control = 'none'\"")


def _needed(rows: Any) -> Any:
    """Sets and groups whose own effect is above 0, and above that of experts of equal load; the largest own effect first.

    A difference from a control says as much when nothing happens to the set itself and its control was the needed one.
    """
    keys = ["experts", "group_kind", "group"]
    some = rows[(rows["group_kind"] != "all") & (rows["q"] < 0.05) & (rows["delta_nll"] > 0)]
    own, beyond = (some[some["control"] == control] for control in ("none", "load"))
    both = beyond.merge(own[[*keys, "delta_nll", "ci_low", "ci_high"]], on=keys, suffixes=("", "_own"))
    return both.sort_values("delta_nll_own", ascending=False)


def _said(value: float, low: float, high: float) -> str:
    """A change with its interval, where there are documents enough for one."""
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]" if low == low else f"{value:+.4f} (too few documents for an interval)"
