"""A store for a command: what lies beside it and is not shown is said on standard error."""

import warnings
from pathlib import Path
from typing import Any

import click

from ...store import Store, open_store


def reading(store: Path, **settings: Any) -> Store:
    """As `open_store`, with its warnings as lines on standard error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = open_store(store, **settings)
    for warning in said:
        click.echo(f"moescope: {warning.message}", err=True)
    return found
