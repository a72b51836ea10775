"""moescope try: one prompt through a model, with experts changed or not, into a store."""

import json
from pathlib import Path
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import FILE, STORE, TEXT, Whole


@click.command(name="try")
@click.argument("model", type=TEXT)
@click.argument("prompt", type=TEXT, required=False)
@loads
@click.option("--store", type=STORE, help="The DuckDB file; made, or given one more run. Without: the answer is printed alone.")
@click.option("--tokens", type=Whole(1, 512), default=40, show_default=True, help="Generate so many.")
@click.option("--edit", "edits", multiple=True, type=TEXT, metavar="PLACE:EXPERT=HOW",
              help="Change an expert: 2:5=off, decoder.3:0=forced, 2:5=+1.5 (nats), 2:5=x0.5; may be repeated.")  # fmt: skip
@click.option("--image", type=FILE, help="A picture, alone or beside the prompt.")
@click.option("--messages", type=TEXT, help="A conversation as JSON, instead of a prompt.")
@click.option("--name", type=TEXT, help="Your name for the run.")
def command(
    model: str, prompt: str | None, store: Path | None, tokens: int, edits: tuple[str, ...], image: Path | None,
    messages: str | None, name: str | None, **options: Any,
) -> None:  # fmt: skip
    """Run PROMPT through MODEL, print what it says, and keep its routing: what the dashboard's page Try it does."""
    from ...errors import InputError
    from ...live.asked import read_asked
    from ...live.once import once
    from ...store.write.change import check_target

    if store is not None:
        check_target(store)
    asked: dict[str, Any] = {"text": prompt, "tokens": tokens, "edits": list(edits), "name": name}
    try:
        asked["messages"] = None if messages is None else json.loads(messages)
    except ValueError as error:
        raise InputError(f'--messages is not JSON ({error}); write [{{"role": "user", "content": "..."}}]') from error
    made = read_asked(json.dumps(asked | ({"picture": str(image)} if image else {})).encode(), model)
    run = once(made, loading(options), store, image, lambda text: click.echo(text, nl=False))
    click.echo("" if run is None else f"\nrun {run} of {store}")
