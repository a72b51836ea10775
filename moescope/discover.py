"""Find built-ins by their folder and strangers' additions by entry points, through one door."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType


@cache
def modules(package: str) -> dict[str, ModuleType]:
    """Public modules of `moescope.<package>` by name, then those that other installations offer.

    A folder in it that defines nothing itself is a shelf: its modules count as the package's own, wherever they lie. Another
    package adds one with an entry point in the group `moescope.<package>`; a built-in keeps its name.
    """
    found = dict(sorted(_below(importlib.import_module(f"moescope.{package}"))))
    for point in entry_points(group=f"moescope.{package}"):
        found.setdefault(point.name, point.load())
    return found


def _below(home: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    for entry in pkgutil.iter_modules(home.__path__):
        if not entry.name.startswith("_"):
            module = importlib.import_module(f"{home.__name__}.{entry.name}")
            if entry.ispkg and _is_shelf(module):
                yield from _below(module)
            else:
                yield entry.name, module


def _is_shelf(package: ModuleType) -> bool:
    """Whether nothing stands in it but other modules."""
    return all(isinstance(value, ModuleType) for name, value in vars(package).items() if not name.startswith("__"))
