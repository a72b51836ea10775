"""Captures of every format with something wrong in them: refused in a sentence, or nothing comes in that is not true."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import hostile_captures
import numpy as np
import pytest
from captures import Served
from hostile_captures import HOSTILE, packed

from moescope.errors import InputError
from moescope.importers._core import door
from moescope.importers._core.captured import Captured, Counts, Fault
from moescope.importers._core.doubles import Doubles
from moescope.importers._core.rules import sound


def taken(path: Path, kind: str | None, made: Served, folder: Path, **asked: Any) -> list[Captured | Counts]:
    """What an import of this file would store, sequence by sequence, without a store. InputError where it would refuse."""
    wanted = door.Wanted(model=made.saved(folder), **asked)
    name, module = door._importer(kind, [door.head(path)])
    ask = door._ask(wanted, name, module)
    seen = Doubles()
    found: list[Captured | Counts] = []
    for item in door._items(module, [path], ask):
        if isinstance(item, Fault):
            raise item
        if isinstance(item, Captured):
            assert ask.model is not None
            sound(item, ask.model, ask.notes)
            seen.check(item, ask.notes)
        found.append(item)
    return found


def true(found: list[Captured | Counts], made: Served) -> None:
    """Every decision that came in is one that was made, of its own token."""
    known = {one.tokens.tobytes(): one for one in made.sequences}
    by_length = {len(one.tokens): one for one in made.sequences}
    for item in found:
        assert isinstance(item, Captured)
        tokens = None if item.tokens is None else np.asarray(item.tokens, np.int64)
        one = known.get(tokens.tobytes()) if tokens is not None and (tokens >= 0).all() else None
        one = one or by_length[item.length] if item.named else one
        every = np.concatenate([s.experts for s in made.sequences])
        rows = every if one is None else one.experts[item.start :][: item.rows]
        for row, experts in enumerate(item.experts):
            there = experts[:, 0] >= 0
            if one is None:
                assert (rows[:, there] == experts[there]).all((1, 2)).any()
            else:
                assert (rows[row][there] == experts[there]).all()


HARMLESS = {  # what comes in is true
    "sglang more tokens than there are",  # the ids are there, and are counted
    "recorder other positions",  # tokens are rows of their forwards
    "recorder a record lost",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_or_true(case: str, tmp_path: Path) -> None:
    kind, write = HOSTILE[case]
    made = captures.served(32, 4, 4, dense=(0,), n=3, seed=11, longest=30)
    path = write(made, tmp_path)
    try:
        found = taken(path, kind.split()[0], made, tmp_path)
    except InputError as refusal:
        said = str(refusal)
    else:
        true(found, made)
        assert case in HARMLESS
        return
    assert "\n" not in said
    assert 40 < len(said) < 700


KINDS: dict[str, tuple[str, Callable[[Served], list[dict[str, Any]]]]] = {
    "vllm": ("vllm", captures.vllm), "sglang": ("sglang", captures.sglang), "vllm 0.21": ("vllm", captures.vllm_021),
    "dynamo": ("dynamo", captures.dynamo),
}  # fmt: skip
SHAPES = [
    {"experts": 8, "top_k": 2, "layers": 6, "dense": (2, 4)}, {"experts": 260, "top_k": 12, "layers": 3, "dense": (0, 1)},
    {"experts": 64, "top_k": 1, "layers": 4}, {"experts": 512, "top_k": 10, "layers": 2},
    {"experts": 16, "top_k": 15, "layers": 3},
]  # fmt: skip


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("how", ["", "gz", "bz2", "zst"])
def test_other_models_and_compressed_files(form: str, shape: int, how: str, tmp_path: Path) -> None:
    _, make = KINDS[form]
    made = captures.served(**SHAPES[shape], seed=shape, n=3)
    if form == "vllm 0.21" and made.dense:
        made = captures.served(**{**SHAPES[shape], "dense": (0,)}, seed=shape)
    path = captures.lines(tmp_path / "a.jsonl", make(made))
    path = packed(how)(path) if how else path
    found = taken(path, None, made, tmp_path)
    assert len(found) == 3
    true(found, made)


UNUSUAL: dict[str, Callable[[Served], list[dict[str, Any]]]] = {
    "names of other scripts": lambda made: hostile_captures.unicode_ids(captures.vllm(made)),
    "requests beside responses": lambda made: hostile_captures.paired(captures.vllm(made), made),
    "out of order": lambda made: captures.vllm(made)[::-1],
    "answers of one token": hostile_captures.emptied,
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_sound_captures_of_unusual_kinds(case: str, tmp_path: Path) -> None:
    made = captures.served(32, 4, 4, dense=(0,), n=3, seed=4)
    path = captures.lines(tmp_path / "a.jsonl", UNUSUAL[case](made))
    for one, cut in zip(made.sequences, (1, 2) if case == "answers of one token" else ()):
        one.answer = one.answer[:cut]
        one.experts = one.experts[: len(one.prompt) + cut - 1]
    found = taken(path, None, made, tmp_path)
    assert len(found) == 3
    true(found, made)


def test_stages_of_a_pipeline(tmp_path: Path) -> None:
    made = captures.served(32, 4, 6, n=3, seed=4)
    for rank, layers in enumerate(([0, 1], [2, 3, 4], [5])):
        captures.megatron(tmp_path / "trace", made, rank=rank, of=layers)
    found = taken(tmp_path / "trace", "megatron", made, tmp_path, options={"layer_offsets": [0, 2, 5], "numbering": "hook"})
    true(found, made)
    with pytest.raises(InputError):
        taken(tmp_path / "trace", "megatron", made, tmp_path, options={"layer_offsets": [0, 1, 5], "numbering": "hook"})
