"""moescope listen: a door before an engine's server that keeps the routing of what passes."""

import sys
from pathlib import Path

import click

from .._support.options import PORT, STORE, TEXT


@click.command(name="listen")
@click.option("--upstream", type=TEXT, required=True, metavar="URL", help="The engine's server, e.g. http://127.0.0.1:8000.")
@click.option("--store", type=STORE, required=True, help="The store to write into.")
@click.option(
    "--model", type=TEXT, required=True, metavar="CONFIG", help="What is served: a config.json, its folder, a hub name."
)
@click.option("--tokenizer", type=TEXT, help="For the text of tokens: a tokenizer.json, its folder, or a name of the hub.")
@click.option(
    "--host", type=TEXT, default="127.0.0.1", show_default=True, help="Where it listens; 0.0.0.0: for other machines."
)
@click.option("--port", type=PORT, default=8766, show_default=True)
@click.option("--header", type=TEXT, default="X-Moescope-Label", show_default=True, help="Labels a request: kind=value, ...")
@click.option("--name", type=TEXT, help="Of the run; default: the engine's address.")
def command(
    upstream: str, store: Path, model: str, tokenizer: str | None, host: str, port: int, header: str, name: str | None
) -> None:
    """Pass requests on to a server with an OpenAI-compatible API (or SGLang's /generate), and keep the routing of its answers.

    The engine has to be started so that it returns routed experts; requests are asked for them, answers are given back without
    them (unless the client asked too). Kept are experts, tokens, the request's text and its label, and nothing else; whatever
    goes wrong with the store, requests go on. Ctrl-C ends it and completes the run.
    """
    from ...errors import InputError
    from ...importers._core.model import read_model
    from ...importers._core.words import Tokenizer
    from ...importers._listen.keeper import Keeper
    from ...importers._listen.serve import serve

    if not upstream.startswith(("http://", "https://")):
        raise InputError(f"{upstream} is no address of a server: write http://HOST:PORT")
    read = read_model(model)
    words = Tokenizer(tokenizer) if tokenizer is not None else None
    keeper = Keeper(store, read, name or upstream, lambda text: click.echo(f"moescope: {text}", err=True), words)
    click.echo(f"http://{host}:{port} passes on to {upstream}, routing goes to {store} (Ctrl-C ends it)")
    sys.stdout.flush()
    try:
        serve(upstream, keeper, host, port, header)
    finally:
        keeper.close()
        runs = f"run {', '.join(map(str, keeper.runs))} of {store}" if keeper.runs else "no run"
        click.echo(f"{runs}: {keeper.kept:,} answers kept, {keeper.lost:,} not")
