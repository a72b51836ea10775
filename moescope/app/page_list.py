"""Which pages there are: every file in views/ says so itself."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

VIEWS = Path(__file__).parent / "views"
ICON = str(VIEWS.parent / "icon.svg")


@cache
def views() -> list[tuple[Path, dict[str, Any]]]:
    """Files and what each says of itself, PAGE = {"title", "icon", "order", "group"}, in their order."""
    found = [(path, _about(path)) for path in VIEWS.glob("[a-z]*.py")]
    return sorted(found, key=lambda view: view[1]["order"])


def _about(path: Path) -> dict[str, Any]:
    values = [
        n.value for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PAGE"
    ]
    return dict(ast.literal_eval(values[0]))
