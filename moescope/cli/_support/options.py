"""Types of options, for every command: what is out of range or no such thing is refused before anything is loaded."""

import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...errors import InputError
from ...foreign import said
from ...words import numbers, settings


class Whole(click.IntRange):
    """A whole number in plain digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; usage error for anything else."""
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,30}", value):
            self.fail(f"{value[:80]!r} is not a whole number", param, ctx)
        number = int(value)
        if self.min is not None and number < self.min:
            self.fail(f"{number} is not in the range x>={self.min}", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{number} is not in the range x<={self.max}", param, ctx)
        return number

    def _describe_range(self) -> str:
        return f"x>={self.min}" if (self.max or 0) > 2**31 else super()._describe_range()


class Share(click.FloatRange):
    """A finite number between two others."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; usage error for anything else."""
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?", value):
            self.fail(f"{value[:80]!r} is not a number in plain digits", param, ctx)
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


class Text(click.ParamType):
    """Words of which something is left when blanks are taken away, and which can be stored."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text; usage error for nothing, and for bytes that are no UTF-8."""
        if not isinstance(value, str) or not value.strip():
            self.fail("it is empty", param, ctx)
        if not value.isprintable() and re.search(r"[\x00\ud800-\udfff]", value):
            self.fail(f"{value[:80]!a} is not UTF-8 text", param, ctx)
        return value


class File(click.ParamType):
    """A path to a file, or to where one will be: no device, pipe or socket, which would hang or be destroyed."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; usage error for one that cannot be a file."""
        text = os.fspath(value)
        TEXT.convert(text, param, ctx)
        try:
            mode = os.stat(text).st_mode
        except FileNotFoundError:
            return Path(text)
        except (OSError, ValueError) as error:
            self.fail(said(error), param, ctx)
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            self.fail(f"{text} is a device, pipe or socket; name a file", param, ctx)
        return Path(text)


class Stored(File):
    """A store: a path, or the address of one elsewhere (s3://..., hf://...), of which this machine has its small file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path on this machine; usage error for one that cannot be a file. InputError, StoreError of an address."""
        from ...store.remote.addresses import is_address, local

        return local(value) if is_address(value) else super().convert(value, param, ctx)


_Callback = Callable[[click.Context, click.Parameter, Any], Any]


def read_with(reader: Callable[[Any], Any]) -> _Callback:
    """A callback that reads an option by a function of the library; its InputError is a usage error of that option."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else reader(value)
        except InputError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return callback


def names(text: str) -> list[str]:
    """'a,b' as ['a', 'b']; InputError for an empty one."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise InputError(f"{text[:80]!r} is not a list of names such as a,b")
    return found


COUNT = Whole(1, 2**48)
NONE_OR_MORE = Whole(0, 2**48)
RUN = Whole(0, 2**32 - 1)  # as wide as the column of the store
SEED = Whole(0, 2**63 - 1)
BATCH = Whole(1, 2**20)
THREADS = Whole(1, 1024)
PORT = Whole(1, 65535)
SHARE = Share(0, 1)
TEXT = Text()
FILE = File()
STORE = Stored()
LAYERS = read_with(numbers)
SETTINGS = read_with(settings)
NAMES = read_with(names)


def settings_of(what: str) -> Callable[[Any], Any]:
    """The option -p KEY=VALUE of a command whose question has options of its own."""
    return click.option("--option", "-p", "options", multiple=True, callback=SETTINGS, metavar="KEY=VALUE", help=what)
