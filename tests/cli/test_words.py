"""Numbers, lists and settings are read strictly, in one way for every command; readers refuse in one sentence."""

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hostile import commands
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moescope.errors import InputError, MoescopeError
from moescope.inputs import read
from moescope.inputs._reading.formats import suffixes
from moescope.interventions import parse
from moescope.words import Count, Portion, check, fits, numbers, setting
from moescope.words import settings as pairs

EXAMPLES = max(50, int(os.environ.get("MOESCOPE_FUZZ", "50")))
PARAMETERS = [(name, p) for name, command in commands().items() for p in command.params]
NUMERIC = [(n, p) for n, p in PARAMETERS if isinstance(p.type, click.types.IntParamType | click.types.FloatParamType)]


@pytest.mark.parametrize(("name", "parameter"), NUMERIC, ids=lambda v: v if isinstance(v, str) else v.name)
@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "-1", "maybe", "", "٣", "0x10", "9" * 30, "9" * 5000, "1e999", str(2**64)]
)
def test_no_numeric_option_takes(name: str, parameter: click.Parameter, text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameter.type.convert(text, parameter, None)


TYPED = [
    (n, p) for n, p in PARAMETERS if not getattr(p, "is_flag", False) and not isinstance(p.type, click.Choice | click.Path)
]


@pytest.mark.parametrize(("name", "parameter"), TYPED, ids=lambda v: v if isinstance(v, str) else v.name)
def test_every_other_option_has_a_type_that_refuses_nothing_and_no_text(name: str, parameter: click.Parameter) -> None:
    """Or a callback that reads it."""
    if parameter.callback is not None:
        return
    for text in ("", " ", "\udcff"):
        with pytest.raises(click.UsageError):
            parameter.type.convert(text, parameter, None)


@pytest.mark.parametrize(
    ("text", "found"), [("0", [0]), ("0,4-6", [0, 4, 5, 6]), ("3,1-3", [1, 2, 3]), ("0-9999", [*range(10_000)])]
)
def test_lists(text: str, found: list[int]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "x", "5-1", "0-999999999999", "10000", "-1", "1--2", "٣", "9" * 5000, "1.0", "0x1"]
)
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(InputError) as refused:
        numbers(text)
    assert len(str(refused.value)) < 250
    with pytest.raises(InputError):
        parse(f"0:{text}0000" if text.isascii() and text.isdigit() else f"0:{text} ")


@pytest.mark.parametrize(
    ("text", "found"),
    [("a=1", 1), ("a=1.5", 1.5), ("a=true", True), ("a=null", None), ("a=genre", "genre"), ('a="1"', "1"), ("a=b=c", "b=c"),
     ("a=[1,2]", [1, 2]),
     ("a=", ""), ("a=007", "007"), ("a=maybe", "maybe")],
)  # fmt: skip
def test_settings(text: str, found: Any) -> None:
    assert setting(text) == ("a", found)


@pytest.mark.parametrize(
    "texts", [["a"], ["=1"], ["a b=1"], ["a=nan"], ["a=-inf"], ["a=1e999"], ["a=[NaN]"], ["é=1"], ["a=1", "a=2"]]
)
def test_settings_that_are_none(texts: list[str]) -> None:
    with pytest.raises(InputError):
        pairs(texts)


@pytest.mark.parametrize(
    ("value", "hint", "right"),
    [(1, int, True), (True, int, False), (1, float, True), (math.nan, float, False), ("a", str, True), (1, str, False),
     (None, int | None, True),
     (1, bool, False), (0, Count, False), (1, Count, True), (10**12, Count, False), (0.5, Portion, True), (1.5, Portion, False),
     ((1, 2), tuple[int, int], True), ([1], tuple[int, int], False), (["a"], tuple[int, ...], False)],
)  # fmt: skip
def test_types(value: Any, hint: Any, right: bool) -> None:
    assert fits(value, hint) == right
    if not right:
        with pytest.raises(InputError, match="x must be "):
            check("x", value, hint)


@pytest.mark.parametrize("suffix", sorted(suffixes()))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    said = ""
    try:
        list(read(path).examples)
    except MoescopeError as refusal:
        said = str(refusal)
    assert "\n" not in said


def test_an_archive_that_unfolds_is_refused_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", input_ids=np.zeros((1000, 1000), np.int64))
    monkeypatch.setattr("moescope.inputs._reading.bounds.room", lambda: 1 << 20)
    with pytest.raises(InputError, match=r"bomb\.npz is too large: it would fill 8,000,000 bytes"):
        read(tmp_path / "bomb.npz")


def test_an_archive_whose_header_lies(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (10**12, 4)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("input_ids.npy", head.getvalue())
    with pytest.raises(InputError, match="32,000,000,000,000 bytes"):
        read(tmp_path / "lie.npz")
