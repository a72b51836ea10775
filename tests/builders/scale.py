"""Tests of many processes and of extras: they take minutes, and `make test-scale` asks for them."""

import os
from importlib.util import find_spec
from typing import Any

import pytest

PATIENCE = 1200  # seconds for a command, on a machine that others keep busy
ASKED = bool(os.environ.get("MOESCOPE_SCALE"))


def asked_for(extra: str | None = None, package: str | None = None) -> Any:
    """Skips unless `make test-scale` runs, and the extra is installed where it is of one."""
    if package is not None and find_spec(package) is None:
        return pytest.mark.skip(reason=f"{package} is not installed: pip install moescope[{extra}], or make test-scale")
    return pytest.mark.skipif(not ASKED, reason="takes minutes: make test-scale")
