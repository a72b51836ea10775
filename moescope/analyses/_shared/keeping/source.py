"""The code behind an analysis as one digest: its own file, all it imports from its package and ours, and the libraries."""

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

LIBRARIES = ("numpy", "scipy", "pandas", "scikit-learn", "umap-learn", "duckdb")
OURS = ("moescope.analyses.", "moescope.statistics")  # reading, drawing and refusing are no part of what is said
_VIEWS = ("views.sql", "physical/tables.py")  # of the store: what its questions see


@cache
def code_of(module: ModuleType) -> str:
    """Changes when anything changes that could change what the analysis says."""
    found = hashlib.sha256()
    for path in sorted(_files(module)):
        found.update(path.read_bytes())
    for name in LIBRARIES:
        found.update(f"{name} {_version(name)}".encode())
    return found.hexdigest()


@cache
def reads_ablations(module: ModuleType) -> bool:
    """Whether its code, or what it imports, names the tables of ablations."""
    own = [path for path in _files(module) if path.suffix == ".py" and "store" not in path.parts[-3:]]
    return any(re.search(r"\b(ablations|ablation_effects)\b", path.read_text()) for path in own)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def _files(module: ModuleType) -> frozenset[Path]:
    """Source files of a module and of everything below that it imports, and the store's views."""
    own, seen, waiting = module.__name__.partition(".")[0], dict[str, Path](), [module.__name__]
    while waiting:
        name = waiting.pop()
        mine = name.startswith(OURS) or (own != "moescope" and name.partition(".")[0] == own)
        if mine and name not in seen and (path := _source(name)) is not None:
            seen[name] = path
            waiting += _imported(name, path)
    store = Path(__file__).parents[3] / "store"
    return frozenset([*seen.values(), *(store / view for view in _VIEWS)])


def _source(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imported(name: str, path: Path) -> tuple[str, ...]:
    return tuple(_names(name, path))


def _names(name: str, path: Path) -> Iterator[str]:
    """Names that could be modules: of `from a import b` both a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            yield from (str(base), *(f"{base}.{alias.name}" for alias in node.names))
