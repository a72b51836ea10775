"""Adapters that take part in a forward from outside the base model: not from a folder, where the base model alone would run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moescope.errors import ModelError
from moescope.models.adapters import put_on
from moescope.models.packages import peft as tiny
from moescope.models.sources import unwrap

peft = pytest.importorskip("peft")
MAKERS: dict[str, Callable[[Path], Any]] = {"XLORA": tiny.xlora, "POLY": tiny.poly}


@pytest.mark.parametrize("kind", MAKERS)
def test_refused_from_a_folder(kind: str, tmp_path: Path) -> None:
    """X-LoRA's first pass and Poly's tasks are in no base model: refused, with what to do instead."""
    MAKERS[kind](tmp_path / "made").save_pretrained(tmp_path / "saved")
    base = tiny.base()
    before = {name: type(m) for name, m in base.named_modules()}
    with pytest.raises(ModelError, match=f"adapter of the kind {kind}, which takes part .* load it with PEFT and give"):
        put_on("saved", tmp_path / "saved", base, allow=False)
    assert {name: type(m) for name, m in base.named_modules()} == before


@pytest.mark.parametrize("kind", MAKERS)
def test_traced_as_it_is(kind: str, tmp_path: Path) -> None:
    """Given as an object, the whole of it is traced; other adapters as the base model that they are in."""
    model = MAKERS[kind](tmp_path / "made")
    assert unwrap(model) is model
    plain = tiny.lily(tmp_path)
    assert unwrap(plain) is plain.get_base_model()
