"""`moescope`: parse, call, print. One file per command, found by this folder; each has an object `command`."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from ..discover import modules
from ._support.boundary import Session, guarded
from ._support.quiet import quiet


class Commands(click.Group):
    """Commands from the files of this folder; whatever goes wrong becomes one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(modules("cli"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        found = modules("cli").get(cmd_name)
        return None if found is None else found.command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit; without `standalone_mode` what is raised is the caller's."""
        if not standalone_mode:
            return super().main(
                args, prog_name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args, **extra
            )
        given, name = list(sys.argv[1:] if args is None else args), prog_name or "moescope"
        self._main_shell_completion(extra, name, complete_var)

        def run(session: Session) -> None:
            with self.make_context(name, given, obj=session, **extra) as context:
                self.invoke(context)

        sys.exit(guarded(run))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="moescope")
@click.option("--debug", is_flag=True, envvar="MOESCOPE_DEBUG", help="Show tracebacks, and what libraries say.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """See what mixture-of-experts models do with their routers.

    \b
    moescope trace mixtral --data text --store run.duckdb    trace a shipped model on shipped text
    moescope app run.duckdb                                  look at it
    moescope sql run.duckdb "from load_balance"              ask it anything
    """
    if isinstance(ctx.obj, Session):
        ctx.obj.debug = debug
    hands_over = getattr(modules("cli").get(ctx.invoked_subcommand or ""), "HANDS_OVER", False)
    if not debug and not hands_over:
        ctx.with_resource(quiet())
