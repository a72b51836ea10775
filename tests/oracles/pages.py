"""Modules of the dashboard without a browser and without drawing, by name."""

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "moescope" / "app"


def opened(store: Path, view: str, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    """A page over a store, which shows no error."""
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    test = AppTest.from_file(str(APP / "main.py"), default_timeout=120)
    test.query_params.update(query)
    test.switch_page(f"views/{view}.py")
    test.run()
    assert not test.exception
    assert [e.value for e in test.error] == []
    return test


def offered(test: AppTest, label: str) -> list[str]:
    """What a picker offers."""
    return next(list(box.options) for box in test.selectbox if box.label == label)


def nothing(test: AppTest) -> list[str]:
    """What a page says where there is nothing to show."""
    return [m.value for m in test.get("html") if isinstance(m.value, str) and 'class="ms-empty"' in m.value]


def part(name: str) -> Any:
    """A module of the dashboard, such as "queries.balance"."""
    return importlib.import_module(f"moescope.app.{name}")


def view(name: str) -> Any:
    """A page's module, whose last line, which draws it, is left out."""
    path = APP / "views" / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.unparse(tree.body.pop()) == "render()"
    module = ModuleType(f"views_{name}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(tree, str(path), "exec"), vars(module))
    return module


def rows(frame: Any, *columns: str) -> list[tuple[Any, ...]]:
    """A frame's rows as plain values, what is missing as None."""
    some = frame[list(columns)] if columns else frame
    return [tuple(_plain(v) for v in row) for row in some.itertuples(index=False)]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value.tolist() if hasattr(value, "tolist") else value
    return None if value is None or value is pd.NA or (isinstance(value, float) and value != value) else value


def same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    """Row by row, floats to 1e-6."""
    known = [tuple(map(_plain, row)) for row in expected]
    close = [tuple(pytest.approx(v, rel=1e-6, abs=1e-9) if _is_number(v) else v for v in row) for row in known]
    assert found == close


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)
