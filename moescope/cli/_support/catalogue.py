"""What there is to ask, as a list: analyses, experiments."""

import json
from collections.abc import Sequence
from typing import Any

import click


def tell_catalogue(entries: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print a line for each entry (name, title, question, options, `required` ones first), or all as JSON."""
    if as_json:
        click.echo(json.dumps(entries, indent=1, default=str))
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        options = ", ".join([*entry.get("required", ()), *entry["options"]])
        click.echo(f"{entry['name']:{width}}  {entry['title']}: {entry['question']}{f' [{options}]' if options else ''}")
