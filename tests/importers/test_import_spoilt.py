"""Captures spoilt in the ways of engines, at random places: each is refused for what it is; sound ones pass."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import numpy as np
import pytest

import moescope
from moescope import errors
from moescope.importers._core.captured import Captured, Notes
from moescope.importers._core.model import of_config
from moescope.importers._core.rules import sound

Spoil = Callable[[captures.Served, np.random.Generator], dict[str, Any]]


def _response(made: captures.Served, ids: Any, kind: Any = np.uint16) -> dict[str, Any]:
    """The first response, with other planes."""
    found = captures.vllm(made)[0]
    found["choices"][0]["routed_experts"] = ids if isinstance(ids, str) else captures.npy(ids, kind)
    return found


def _planes(made: captures.Served) -> Any:
    return made.planes(made.sequences[0])


def zero_plane(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    ids[:, rng.choice(made.routed)] = 0
    return _response(made, ids)


def shifted(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, np.roll(_planes(made), -1, axis=1))


def strided(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    ids[1::3] = 0
    return _response(made, ids)


def lost_chunk(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    at = int(rng.integers(0, len(ids) - 6))
    ids[at : at + 2] = 0
    return _response(made, ids)


def beyond(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    ids[rng.integers(len(ids)), rng.choice(made.routed), rng.integers(made.top_k)] = made.experts + int(rng.integers(0, 8))
    return _response(made, ids)


def twice(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    row, layer = rng.integers(len(ids)), rng.choice(made.routed)
    ids[row, layer, 1] = ids[row, layer, 0] = max(1, ids[row, layer, 0])
    return _response(made, ids)


def partly(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    ids[rng.integers(len(ids)), rng.choice(made.routed), -1] = -1
    return _response(made, ids, np.int16)


def all_missing(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, np.full_like(_planes(made), -1), np.int16)


def wrapped(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, _planes(made), np.uint8)


def repeated(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    ids[-6:] = ids[-6]
    return _response(made, ids)


def layer_lost(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, np.delete(_planes(made), [0, int(rng.integers(1, made.layers))], axis=1))


def other_k(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, _planes(made)[..., :-1])


def row_missing(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, np.delete(_planes(made), int(rng.integers(made.layers)), axis=0))


def rows_too_many(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    ids = _planes(made)
    return _response(made, np.concatenate([ids, ids[:2]]))


def cut(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    text = captures.npy(_planes(made))
    return _response(made, text[: int(rng.integers(8, len(text)) // 4 * 4)])


def lying_header(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 4, 4)})
    return _response(made, base64.b64encode(file.getvalue() + b"\0" * 64).decode())


def pickled(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    return _response(made, base64.b64encode(file.getvalue()).decode())


def floats(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return _response(made, _planes(made), np.float32)


def no_lengths(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    found = captures.vllm(made)[0]
    del found["usage"], found["choices"][0]["token_ids"]
    return found


def an_error(made: captures.Served, rng: np.random.Generator) -> dict[str, Any]:
    return {"error": {"message": "overloaded"}}


SPOILT: dict[Spoil, str] = {
    zero_plane: "are all 0, and that layer has a router", shifted: "layer 0 holds experts.*shifted",
    strided: "every third row is all 0", lost_chunk: "2 of .* rows are 0 in every layer.*chunk",
    beyond: "expert 30.* and .* has 300.*EPLB.*map", twice: r"expert \d+ twice in layer",
    partly: "captured whole or not at all",
    all_missing: "no decision: every id is -1", wrapped: "uint8 numbers end at 255.*300 experts.*wrapped",
    repeated: "chose the same experts in every layer, though their tokens differ",
    layer_lost: "2 layers.*3 routers.*were lost",
    other_k: "3 experts per decision.*chooses 4", row_missing: "one token's row is missing", rows_too_many: "2 rows too many",
    cut: "cut off", lying_header: "says 17,592,186,044,416 bytes in its header", pickled: "holds object",
    floats: "holds float32",
    no_lengths: "does not say how many tokens its answer has", an_error: "no answer of a server",
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_what_cannot_be_is_refused_for_what_it_is(spoil: Spoil, seed: int, tmp_path: Path) -> None:
    made = captures.served(300, 4, 4, dense=(0,), seed=seed, longest=40)
    while len(made.sequences[0].answer) < 9:
        seed += 100
        made = captures.served(300, 4, 4, dense=(0,), seed=seed, longest=40)
    file = captures.lines(tmp_path / "a.jsonl", [spoil(made, np.random.default_rng(seed)), *captures.vllm(made)[1:]])
    with pytest.raises(errors.InputError, match=SPOILT[spoil]) as refusal:
        moescope.import_vllm(file, tmp_path / "a.duckdb", model=made.saved(tmp_path))
    assert "line 1 of a.jsonl" in str(refusal.value)
    assert not (tmp_path / "a.duckdb").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"id": "x", "choi', "line 2 of a.jsonl is no JSON"), ("[1]", "holds a JSON int"), ('"x"', "holds a JSON str")],
)
def test_a_line_that_is_none_is_left_out_and_the_others_come_in(line: str, words: str, tmp_path: Path) -> None:
    made = captures.served()
    file = captures.lines(tmp_path / "a.jsonl", captures.vllm(made))
    text = file.read_text().splitlines()
    file.write_text("\n".join([text[0], line, *text[1:]]) + "\n")
    with pytest.raises(errors.InputError, match=words):
        moescope.import_vllm(file, tmp_path / "a.duckdb", model=made.saved(tmp_path))
    done = moescope.import_vllm(file, tmp_path / "b.duckdb", model=made.saved(tmp_path), keep_going=True)
    assert (done.sequences, len(done.left_out)) == (3, 1)


def test_sglang_lengths_that_are_no_rows(tmp_path: Path) -> None:
    made = captures.served()
    records = captures.sglang(made)
    records[0]["meta_info"]["routed_experts"] = captures.raw(made.planes(made.sequences[0]).reshape(-1)[:-1])
    file = captures.lines(tmp_path / "a.jsonl", records)
    with pytest.raises(errors.InputError, match="no multiple of 4 layers x top-4 x 4 bytes"):
        moescope.import_sglang(file, tmp_path / "a.duckdb", model=made.saved(tmp_path))


def test_rows_that_all_lack_alike_start_later_and_others_do_not(tmp_path: Path) -> None:
    made = captures.served(n=4, seed=5)
    model, later = made.saved(tmp_path), captures.vllm(made, start=3)
    done = moescope.import_vllm(captures.lines(tmp_path / "a.jsonl", later), tmp_path / "a.duckdb", model=model)
    assert any("taken to start at token 3" in text for text in done.warnings)
    mixed = captures.lines(tmp_path / "b.jsonl", [later[0], *captures.vllm(made)[1:]])
    with pytest.raises(errors.InputError, match="3 rows are missing; if they are the prompt's first"):
        moescope.import_vllm(mixed, tmp_path / "b.duckdb", model=model)
    with pytest.raises(errors.InputError, match="3 rows are missing"):
        moescope.import_vllm(tmp_path / "a.jsonl", tmp_path / "b.duckdb", model=model, prompt_start=0)


def test_policylang_of_routers_that_it_cannot_recompute(tmp_path: Path) -> None:
    made = captures.served()
    made.family = "deepseek_v3"
    file = captures.policylang(tmp_path / "a.jsonl", made)
    with pytest.raises(errors.InputError, match="sigmoid, bias or groups"):
        moescope.import_policylang(file, tmp_path / "a.duckdb", model=made.saved(tmp_path))


@pytest.mark.parametrize("top_k", [1, 2, 4, 8])
def test_sound_captures_give_no_alarm(top_k: int) -> None:
    """Random routing, also of few experts, short answers, equal tokens, and routers that prefer a few experts."""
    rng = np.random.default_rng(top_k)
    for _ in range(200):
        experts, routers = int(rng.integers(max(4, top_k + 1), 64)), int(rng.integers(1, 6))
        model = of_config({"num_experts": experts, "num_experts_per_tok": top_k, "num_hidden_layers": routers}, "m")
        length = int(rng.integers(1, 60))
        lean = rng.dirichlet(np.full(experts, 0.3), routers)
        ids = (np.log(lean + 1e-9) + rng.gumbel(size=(length, routers, experts))).argsort(-1)[..., ::-1][..., :top_k]
        if top_k == 1 and length >= 8 and (ids == ids[:1]).all(axis=0).any():
            continue  # cannot be told from a plane that was never written
        one = Captured("x", "x", 0, ids.astype(np.int32), length, length, tokens=rng.integers(0, 9, length))
        assert sound(one, model, Notes()) is None


def test_equal_tokens_may_repeat_their_routing() -> None:
    model = of_config({"num_experts": 64, "num_experts_per_tok": 4, "num_hidden_layers": 3}, "m")
    ids = np.tile(np.arange(4, dtype=np.int32), (20, 3, 1))
    assert sound(Captured("x", "x", 0, ids, 20, 20, tokens=np.full(20, 7)), model, Notes()) is None
    with pytest.raises(errors.InputError, match="rows 0 to 19 chose the same"):
        sound(Captured("x", "x", 0, ids, 20, 20, tokens=np.arange(20)), model, Notes())
