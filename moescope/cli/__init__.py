"""`moescope`: parse, call, print. One file per command, found by this folder; each has an object `command`."""

import sys
from typing import Any

import click

from .. import __version__
from ..discover import modules
from ..errors import MoescopeError


class Commands(click.Group):
    """Commands from the files of this folder; what moescope raises on purpose becomes one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(modules("cli"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        found = modules("cli").get(cmd_name)
        return None if found is None else found.command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors of moescope and interruptions end it without a traceback."""
        try:
            return super().invoke(ctx)
        except MoescopeError as error:
            click.echo(f"moescope: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "moescope"
            click.echo(f"moescope: {error.format_message().rstrip('.')}; see {where} --help", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("moescope: interrupted", err=True)
            ctx.exit(130)
        except RuntimeError as error:
            if type(error) is not RuntimeError or "interrupted" not in str(error).lower():  # DuckDB's word for Ctrl-C
                raise
            click.echo("moescope: interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(0)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="moescope")
def main() -> None:
    """See what mixture-of-experts models do with their routers.

    \b
    moescope trace mixtral --data text --store run.duckdb    trace a shipped model on shipped text
    moescope app run.duckdb                                  look at it
    moescope sql run.duckdb "from load_balance"              ask it anything
    """
