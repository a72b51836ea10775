"""moescope import: what an engine wrote, checked, into a store."""

import sys
from pathlib import Path
from typing import Any

import click

from .._support.options import COUNT, FILE, NONE_OR_MORE, STORE, TEXT, settings_of


@click.command(name="import")
@click.argument("files", nargs=-1, type=TEXT, metavar="[FORMAT] FILE...")
@click.option("--store", type=STORE, help="The store to write into.")
@click.option("--list", "listed", is_flag=True, help="Say which formats there are, with their options.")
@click.option("--model", type=TEXT, metavar="CONFIG", help="What was served: a config.json, its folder, or a name of the hub.")
@click.option("--experts", type=COUNT, help="Experts of each router, where there is no configuration.")
@click.option("--top-k", type=COUNT, help="Experts of each decision, where there is no configuration.")
@click.option("--layers", type=COUNT, help="Layers, each with a router, where there is no configuration.")
@click.option("--tokenizer", type=TEXT, help="A tokenizer.json, its folder, or a name of the hub: for the text of tokens.")
@click.option("--labels", type=FILE, help="CSV or JSON lines: a column that names the request, the others label it.")
@click.option("--columns", type=FILE, help="Of a table: JSON or TOML that says which column is what.")
@click.option("--order", type=click.Choice(["weight", "unknown"]), help="Of experts, where the configuration does not tell.")
@click.option("--prompt-start", type=NONE_OR_MORE, help="The token at which rows begin (routed_experts_prompt_start).")
@click.option("--name", type=TEXT, help="Of the run.")
@click.option("--keep-going", is_flag=True, help="Leave out what is refused, and say what that was.")
@settings_of("Of the format; see --list.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no notes.")
def command(
    files: tuple[str, ...], store: Path | None, listed: bool, quiet: bool, prompt_start: int | None, **wanted: Any
) -> None:
    """Read routing that an engine captured: vLLM, SGLang, TensorRT-LLM, Megatron, dynamo, llama.cpp, policylang, any table.

    \b
    moescope import responses.jsonl --model Qwen/Qwen3-30B-A3B --store run.duckdb
    moescope import table decisions.csv -p expert=expert_id --store run.duckdb

    FORMAT may be left out where a file says what it is. What cannot be what the model executed is refused in a sentence; what a
    capture lacks is null, and named in the run's warnings.
    """
    from ...errors import InputError
    from ...importers._core.door import import_captures, importers

    if listed:
        _list(importers())
        return
    if store is None:
        raise click.UsageError("Missing option '--store'.")
    kind = files[0] if files and files[0] in importers() and not Path(files[0]).exists() else None
    paths = [Path(file) for file in (files[1:] if kind else files)]
    if not paths:
        raise InputError(f"name the files to import; formats are: {', '.join(importers())}")
    if prompt_start is not None:
        wanted["options"] = {**wanted["options"], "prompt_start": prompt_start}
    with _Progress(paths, quiet) as bar:
        done = import_captures(paths, store, kind, step=bar.step, command=sys.argv, **wanted)
    _say(done, store, quiet)


def _list(known: dict[str, Any]) -> None:
    width = max(map(len, known))
    for name, module in known.items():
        click.echo(f"{name:{width}}  {(module.__doc__ or '').strip().splitlines()[0]}")
        for option, words in module.OPTIONS.items():
            click.echo(f"{'':{width}}    -p {option}=...: {words}")


def _say(done: Any, store: Path, quiet: bool) -> None:
    numbers = ", ".join(map(str, done.runs))
    click.echo(f"run {numbers} of {store}: {done.sequences:,} sequences from {done.kind}")
    for text in done.left_out:
        click.echo(f"left out: {text}", err=True)
    for text in [] if quiet else done.warnings:
        if not text.startswith("left out: "):
            click.echo(f"note: {text}", err=True)


class _Progress:
    """Bytes read, of how many, on standard error."""

    def __init__(self, paths: list[Path], quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        console = Console(stderr=True)
        columns = [TextColumn("importing"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
        self._task = self._bar.add_task("import", total=sum(map(_size, paths)) or None)

    def step(self, read: int) -> None:
        """So many bytes more were read."""
        self._bar.update(self._task, advance=read)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
