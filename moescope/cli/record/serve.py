"""moescope serve: a model that answers prompts with its routing, live; or an engine with moescope inside it."""

import sys
from pathlib import Path
from typing import Any

import click

from .._support.loading import loading, loads
from .._support.options import COUNT, PORT, STORE, TEXT, Share

HANDS_OVER = True  # what a server prints is the user's


class Forms(click.Group):
    """Forms of serving, each a command; whatever is none of them is a MODEL of the first, `model`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`serve mixtral` is `serve model mixtral`."""
        asks = not args or args[0] in ("-h", "--help")
        return super().parse_args(ctx, args if asks or args[0] in self.commands else ["model", *args])


@click.group(name="serve", cls=Forms, subcommand_metavar="MODEL [OPTIONS]...")
def command() -> None:
    """Let MODEL answer prompts, and tell its routing token by token; the dashboard's page Try it asks it.

    MODEL is whatever `moescope trace` takes. Options are those of `moescope serve model --help`. `moescope serve vllm MODEL` is
    vLLM's own server, whose routing goes into a store.
    """


@command.command(name="model")
@click.argument("model", type=TEXT)
@loads
@click.option(
    "--host", type=TEXT, default="127.0.0.1", show_default=True, help="0.0.0.0: for other machines, who need the token."
)
@click.option("--port", type=PORT, help="Where it listens; else a port that is free.")
@click.option("--token", type=TEXT, envvar="MOESCOPE_LIVE_TOKEN", help="What a request has to bear, else made anew.")
@click.option("--seconds", type=Share(1, 86400), default=120.0, show_default=True, help="The longest that one prompt may take.")
@click.option("--shipped", is_flag=True, help="The models that moescope ships can be asked for as well.")
@click.option("--idle", type=COUNT, help="End after so many seconds without a request.")
def model_form(
    model: str, host: str, port: int | None, token: str | None, seconds: float, shipped: bool, idle: int | None, **options: Any
) -> None:
    """Load MODEL and answer at a local endpoint (docs/live.md): open `moescope app STORE --model ADDRESS` to ask it.

    One prompt runs at a time, others wait in line. Nothing is stored here: a run is kept in the store of the dashboard.
    """
    import secrets

    from ...live.desk import Desk
    from ...live.serve import serve
    from ...models.loading import specimens

    how = loading(options)
    token = token or secrets.token_urlsafe(24)
    names = list(dict.fromkeys([model, *(specimens() if shipped else ())]))

    def begun(where: str) -> None:
        click.echo(f"{model} at {where}/?token={token} (Ctrl-C ends it)")
        sys.stdout.flush()

    def say(text: str) -> None:
        click.echo(f"moescope: {text}", err=True)

    serve(lambda: Desk(names, how, seconds, say), host, port or 0, token, begun, idle)


@command.command(name="vllm", context_settings={"ignore_unknown_options": True})
@click.argument("model", type=TEXT)
@click.argument("arguments", nargs=-1, type=TEXT, metavar="[-- OPTIONS OF VLLM]")
@click.option("--store", type=STORE, required=True, help="The store to write into.")
@click.option("--name", type=TEXT, help="Of the run; default: the model's.")
def vllm_form(model: str, arguments: tuple[str, ...], store: Path, name: str | None) -> None:
    """Serve MODEL by vLLM's own server, and keep which experts its routers chose for every token, with their weights.

    \b
    moescope serve vllm Qwen/Qwen3-30B-A3B --store run.duckdb -- --port 8000 --max-model-len 8192

    Whatever goes wrong with the store, requests are served. Ctrl-C ends the server and completes the run; of a server that is
    killed, `moescope recover` keeps what was committed.
    """
    from ...store.write.change import check_target
    from ...store.write.resume import unjoined
    from .._support import engine_server as engine

    engine.installed("vllm")
    check_target(store)
    before = engine.runs_of(store)
    asked = [sys.executable, *engine.server(), model, *engine.patient(arguments)]
    code = engine.run_server(asked, engine.environment(store, name))
    left = [part for part in unjoined(store).parts if not part.alive()] if store.exists() else []
    new = sorted(engine.runs_of(store) - before)
    click.echo(f"run {', '.join(map(str, new))} of {store}" if new else f"no run was completed in {store}")
    if left:
        click.echo(f"moescope: a run was cut off; keep what it had committed: moescope recover {store}", err=True)
    raise SystemExit(code)
