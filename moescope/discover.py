"""Find built-ins by their folder and strangers' additions by entry points, through one door."""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType


@cache
def modules(package: str) -> dict[str, ModuleType]:
    """Public modules of `moescope.<package>` by name, then those that other installations offer.

    Another package adds one with an entry point in the group `moescope.<package>`; a built-in keeps its name.
    """
    home = importlib.import_module(f"moescope.{package}")
    names = sorted(m.name for m in pkgutil.iter_modules(home.__path__) if not m.name.startswith("_"))
    found = {name: importlib.import_module(f"moescope.{package}.{name}") for name in names}
    for point in entry_points(group=f"moescope.{package}"):
        found.setdefault(point.name, point.load())
    return found
