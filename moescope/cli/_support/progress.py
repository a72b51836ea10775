"""What a trace shows while it runs, and when it is done."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...store import Store, open_store


class Bar:
    """A progress bar with rates and the time left, on standard error."""

    def __init__(self, quiet: bool) -> None:
        rate = TextColumn("{task.fields[rate]}")
        columns = [TextColumn("tracing"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()]
        self._progress = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task("trace", total=None, rate="")

    def show(self, progress: dict[str, Any]) -> None:
        """Update from what `trace` reports after each batch; shown from the first one on."""
        self._progress.start()
        rate = f"{progress['tokens'] / max(progress['seconds'], 1e-9):,.0f} tokens/s"
        self._progress.update(self._task, completed=progress["sequences"], total=progress["total"], rate=rate)

    def say(self, text: str) -> None:
        """One line on standard error, beside the bar."""
        self.__exit__()
        print(text, file=sys.stderr)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:  # else it would print an empty line
            self._progress.stop()


def summary(path: Path, run: int, console: Console | None = None) -> None:
    """Print what a run holds: counts, rate, load by layer with the busiest and the dead experts, cost; and how to go on.

    Of a model without routers: the dimensionality of its states.
    """
    console = console or Console()
    query = f"select layer, entropy_bits, busiest, dead from load_balance where run = {run} order by stack, layer"
    with open_store(path) as store:
        routed = bool(store.rows("select count(*) > 0 from routers where run = ?", [run])[0][0])
        _counts(store, run, routed, console)
        console.print(_loads(store, run) if routed else _states(store, run))
        if not routed:
            query = f"select subset, iteration, estimator, value from measures where run = {run}"
        for warning in _warnings(store, run):
            console.print(f"[yellow]note:[/] {warning}", highlight=False)
    console.print(f"\nLook at it:  moescope app {path}", highlight=False, soft_wrap=True)
    console.print(f'Ask it:      moescope sql {path} "{query}"', highlight=False, soft_wrap=True)


def _counts(store: Store, run: int, routed: bool, console: Console) -> None:
    names = "name family dataset status forwards sequences tokens decisions assignments seconds model_seconds trace_seconds"
    columns = ", ".join(f"{'m' if n in ('family', 'name') else 'r'}.{n}" for n in names.split())
    row = store.rows(f"select {columns} from runs r join models m using (model) where run = ?", [run])[0]
    values = dict(zip(names.split(), row))
    cost = values["trace_seconds"] / max(values["model_seconds"], 1e-9)
    what = "decisions" if routed else "tokens"
    rate = values[what] / max(values["seconds"], 1e-9)
    decided = f"{values['decisions']:,} decisions ({values['assignments']:,} assignments) for " if routed else "no router; "
    console.print(
        f"\n[bold]run {run}[/]: {values['name']} ({values['family']}) on {values['dataset']}, {values['status']}\n"
        f"{decided}{values['tokens']:,} tokens of {values['sequences']:,} sequences in {values['forwards']:,} forwards\n"
        f"{values['seconds']:.1f} s, {rate:,.0f} {what}/s; the model waited {100 * cost:.1f} % of its time for the tracing",
        highlight=False,
    )


def _states(store: Store, run: int) -> Table:
    rows = store.rows(
        "select subset, iteration + 1, max(value) filter (estimator = 'unbiased'), max(value) filter (estimator = 'naive') "
        "from measures where run = ? and iteration is not null group by all order by 1, 2",
        [run],
    )
    table = Table("module", "cycle", "participation ratio (unbiased)", "naive")
    for module, cycle, *values in rows:
        table.add_row(module, f"{cycle}", *("" if value is None else f"{value:.1f}" for value in values))
    return table


def _loads(store: Store, run: int) -> Table:
    rows = store.rows(
        "select stack, layer, block_type, contract, experts, load_entropy_bits, max_bits, dropped_share, decisions, "
        "routing_entropy, router from router_summary where run = ? order by stack, layer, router",
        [run],
    )
    table = Table("stack", "layer", "load entropy (bits of max)", "busiest expert", "dead", "dropped", "routing entropy (nats)")
    for stack, layer, block_type, _, _, entropy, most, dropped, _, routing, router in rows:
        load = store.rows("select expert, share from expert_load where router = ? order by share desc nulls last", [router])
        dead = [str(e) for e, share in load if not share]
        place = f"{layer}" if block_type == "ffn" else f"{layer} {block_type}"
        table.add_row(
            stack, place, f"{entropy or 0:.2f} of {most or 0:.2f}", f"{load[0][0]} ({100 * (load[0][1] or 0):.1f} %)",
            ", ".join(dead[:8]) + (" …" if len(dead) > 8 else "") or "none",
            "none" if not dropped else f"{100 * dropped:.1f} %", "" if routing is None else f"{routing:.2f}",
        )  # fmt: skip
    return table


def _warnings(store: Store, run: int) -> list[str]:
    import json

    said = store.rows("select warnings from runs where run = ?", [run])[0][0]
    return json.loads(said) if said else []
