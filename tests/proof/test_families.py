"""Every family of the installed Transformers: what the store holds is what the experts were handed, row by row."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from recount import real_rows, recount

import moescope
from moescope.contracts import find
from moescope.models import tiny
from moescope.proof import prove

QUICK = {"mixtral", "deepseek_v4", "doge", "ernie4_5_vl_moe_text", "jetmoe", "llama4_text", "longcat_flash", "nllb-moe"}
QUICK |= {"switch_transformers", "vitpose_backbone", "zaya", "dbrx", "gemma4_text"}
FAMILIES = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in tiny.names()]


@pytest.mark.sampled(30)
@pytest.mark.parametrize("name", FAMILIES)
def test_store_holds_what_experts_were_handed(name: str, tmp_path: Path) -> None:
    """(router, token) → {expert: weight}, equal to an independent count in every place; padding absent."""
    built = tiny.build(name)
    truth = recount(built.model, built.inputs)
    path = tmp_path / "run.duckdb"
    with moescope.Tracer(built.model, path, inputs=built.inputs), torch.no_grad():
        built.model(**built.inputs)
    kinds = built.inputs.get("moe_mm_token_type_ids")
    for router, stack, tokens, found in _stored(path):
        owner = router if router in truth else router.rpartition(".")[0]
        rows = truth.pop(owner)
        places = list(range(len(rows)))
        if kinds is not None:
            places = (kinds.flatten().bool() == ("vision_moe" in router)).nonzero()[:, 0].tolist()
        real = real_rows(built.inputs, stack, kinds.numel() if kinds is not None else len(rows))
        assert len(tokens) == len(real)
        key = {place: tokens[i] for i, place in enumerate(real)}
        expected = {key[place]: row for place, row in zip(places, rows) if place in key and row}
        assert {t: set(row) for t, row in found.items()} == {t: set(row) for t, row in expected.items()}, router
        for token, row in expected.items():
            assert found[token] == pytest.approx(row, rel=1e-6, abs=1e-7), (router, token)
    assert truth == {}, "blocks that ran and are not in the store"


def _stored(path: Path) -> list[tuple[str, str, list[int], dict[int, dict[int, float]]]]:
    """(router, stack, its stream's tokens in order, {token: {expert: weight}}) of every router of a store."""
    with moescope.open(path) as store:
        tokens: dict[str, list[int]] = {}
        for stack, token in store.rows("select s.stack, token from tokens join sequences s using (sequence) order by token"):
            tokens.setdefault(stack, []).append(token)
        found = []
        for number, name, stack in store.rows("select router, name, stack from routers order by router"):
            rows: dict[int, dict[int, float]] = {}
            for token, expert, weight in store.rows(
                "select token, expert, weight from assignments where router = ? and not dropped", [number]
            ):
                rows.setdefault(token, {})[expert] = weight
            found.append((name, stack, tokens[stack], rows))
    return found


@pytest.mark.sampled(50)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_low_precision_is_proved(name: str, dtype: torch.dtype) -> None:
    """The proof holds in the types that people run."""
    if (name, dtype) == ("deepseek_v4", torch.float16):
        pytest.skip("its own forward fails in fp16: a projection stays float32")
    built = tiny.build(name, dtype=dtype)
    sites = find(built.model)
    proved = prove(built.model, sites, built.inputs)
    assert [p.router for p in proved] == [s.path for s in sites]
    assert all(p.identical or p.note for p in proved)


@pytest.fixture
def threads() -> Iterator[None]:
    """Sums of matrices are rounded otherwise by several threads, and depend on the place of a row."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.sampled(20)
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", FAMILIES)
def test_proved_on_several_threads(name: str) -> None:
    built = tiny.build(name)
    proved = prove(built.model, find(built.model), built.inputs)
    assert all(p.identical for p in proved)


def test_nothing_looks_routed_that_is_not_known() -> None:
    """A new family in Transformers shows here first."""
    assert tiny.unknown() == []
