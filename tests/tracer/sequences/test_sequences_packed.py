"""Documents packed in one row are sequences of their own, with positions of their own, however their bounds are told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from packed import DOCUMENTS, FORMS, told
from stored_sequences import made, texts, traced
from torch import Tensor
from transformers import DataCollatorWithFlattening

import moescope
from moescope.models.tiny import build
from moescope.tracer import SequenceInfo

FAMILIES = ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3"]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.sampled(6)
def test_every_way_to_tell(tmp_path: Path, name: str, cache: bool) -> None:
    model: Any = build("mixtral").model
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(**told(name), use_cache=cache))
    assert texts(store) == DOCUMENTS
    assert store.rows("select tokens from sequences order by sequence") == [(3,), (1,), (4,), (2,)]
    assert store.rows("select count(distinct document) from sequences") == [(4,)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("more", [{}, {"return_flash_attn_kwargs": True}, {"return_seq_idx": True}, {"position_ids_start": 2}])
@pytest.mark.sampled(5)
def test_the_collator_of_transformers(tmp_path: Path, family: str, more: dict[str, Any]) -> None:
    """As it is, in training and out of it."""
    model: Any = build(family).model
    batch = DataCollatorWithFlattening(**more)([{"input_ids": text} for text in DOCUMENTS], return_tensors="pt")
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(**batch))
    assert texts(store) == DOCUMENTS


def test_routes_are_those_of_the_documents_alone(tmp_path: Path) -> None:
    model: Any = build("mixtral").model
    route = (
        "select t.sequence, t.position, r.layer, a.rank, a.expert from assignments a join tokens t using (token) "
        "join routers r using (router) order by all"
    )
    packed = traced(tmp_path / "a.duckdb", model, lambda _: model(**told("positions"), use_cache=False))
    alone = traced(tmp_path / "b.duckdb", model, lambda _: [model(torch.tensor([text])) for text in DOCUMENTS])
    assert packed.rows(route) == alone.rows(route)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("filler", [0, 1])
def test_two_rows_with_padding(tmp_path: Path, side: str, filler: int) -> None:
    """What stands in the positions of padded places begins no document."""
    rows = [DOCUMENTS[:2], [[51, 52, 53, 54, 55, 56]]]
    ids, mask, positions = (torch.full((2, 8), n) for n in (0, 0, filler))
    for row, packed in enumerate(rows):
        text = [i for document in packed for i in document]
        first = 8 - len(text) if side == "left" else 0
        here = slice(first, first + len(text))
        ids[row, here], mask[row, here] = torch.tensor(text), 1
        positions[row, here] = torch.cat([torch.arange(len(document)) for document in packed])
    model: Any = build("mixtral").model
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=mask, position_ids=positions))
    assert texts(store) == [*DOCUMENTS[:2], [51, 52, 53, 54, 55, 56]]


@pytest.mark.parametrize("filler", [0, 1])
def test_left_padding_alone_is_no_packing(tmp_path: Path, filler: int) -> None:
    ids, mask = torch.tensor([[0, 0, 0, 5, 6], [7, 8, 9, 10, 11]]), torch.tensor([[0, 0, 0, 1, 1], [1] * 5])
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, filler)
    model: Any = build("mixtral").model
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(ids, attention_mask=mask, position_ids=positions))
    assert texts(store) == [[5, 6], [7, 8, 9, 10, 11]]


def test_positions_that_go_on_with_a_cache_begin_nothing(tmp_path: Path) -> None:
    model: Any = build("mixtral").model
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])

    def run(_: Any) -> None:
        cache = model(ids[:, :3], position_ids=torch.arange(3)[None], use_cache=True).past_key_values
        model(ids[:, 3:], position_ids=torch.arange(3, 6)[None], past_key_values=cache)

    store = traced(tmp_path / "a.duckdb", model, run)
    assert texts(store) == ids.tolist()
    assert made(store) == ["pppppp"]


def test_infos_and_labels_of_documents(tmp_path: Path) -> None:
    """In order, one for each document."""
    model: Any = build("mixtral").model
    infos = [SequenceInfo(document=f"d{n}", labels={"domain": f"domain {n}"}) for n in range(4)]

    def run(tracer: Any) -> None:
        with tracer.batch(infos):
            model(**told("positions"))

    store = traced(tmp_path / "a.duckdb", model, run)
    assert store.rows("select document, domain, beam, tokens from sequences order by sequence") == [
        ("d0", "domain 0", 0, 3), ("d1", "domain 1", 0, 1), ("d2", "domain 2", 0, 4), ("d3", "domain 3", 0, 2),
    ]  # fmt: skip


def test_what_is_summed_up_has_the_same_units(tmp_path: Path) -> None:
    model: Any = build("mixtral").model
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(**told("positions")), activations=["dimensionality"])
    rows = store.rows("select distinct n, units from measures where subset = 'residual' and estimator = 'naive'")
    assert rows == [(10, 4)]


@pytest.mark.parametrize("tail", [0, 3])
def test_places_behind_the_last_end_are_padding(tmp_path: Path, tail: int) -> None:
    model: Any = build("mixtral").model
    given: dict[str, Tensor] = told("cu_seq_lens")
    given["input_ids"] = torch.nn.functional.pad(given["input_ids"], (0, tail))
    store = traced(tmp_path / "a.duckdb", model, lambda _: model(**given))
    assert texts(store) == DOCUMENTS
    assert moescope.open(tmp_path / "a.duckdb").rows("select tokens from forwards") == [(10,)]
