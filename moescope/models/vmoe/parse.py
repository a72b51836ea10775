"""Read dicts into dataclasses, refusing names that nobody knows."""

import ast
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from ...errors import InputError
from ...words import check

T = TypeVar("T")


def read(cls: type[T], values: Mapping[str, Any], where: str, ignored: set[str]) -> T:
    """`cls(**values)` without the ignored names; InputError for names that `cls` lacks or needs."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known) - ignored)
    if unknown:
        raise InputError(f"{where} has unknown options {', '.join(unknown)}: it has {', '.join(known)}.")
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in values]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}: give them as the authors' configs do.")
    hints = get_type_hints(cls)
    for name in known.keys() & values.keys():
        check(f"{where} option {name}", values[name], hints[name])
    return cls(**{name: value for name, value in values.items() if name in known})


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Split 'module.Name(option=1)' into its name and its literal options, as the authors' parse_call reads it."""
    try:
        node = ast.parse(text, mode="eval").body
        if not isinstance(node, ast.Call):
            return text, {}
        if node.args:
            raise ValueError("options must be named")
        return ast.unparse(node.func), {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(f"router name {text!r} cannot be read ({error}): give Name or Name(option=value).") from error
