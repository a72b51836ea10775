"""Generation: prompt and generated tokens, caches, beams, chunks and drafts are told apart, and agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import ids, mixtral

import moescope
from moescope.store.integrity.verify import verify

FORWARDS = "select phase, batch_size, tokens from forwards order by forward"
ROUTE = (
    "select r.layer, t.position, a.rank, a.expert, a.weight from assignments a join routers r using (router) "
    "join tokens t using (token) join sequences s on s.sequence = t.sequence where a.run = ? and s.beam = 0 "
    "and t.sequence = (select min(sequence) from sequences where run = a.run) order by all"
)


def traced(store: Path, model: torch.nn.Module, run: Callable[[], object]) -> moescope.Store:
    """A store with one more run."""
    with torch.no_grad(), moescope.Tracer(model, store):
        run()
    opened = moescope.open(store)
    assert [check for check in verify(opened) if check.broken] == []
    return opened


def test_greedy_and_left_padding(tmp_path: Path) -> None:
    """Prefill without padding, then one token a sequence; the last generated token is never routed."""
    model, x = mixtral(), ids()
    mask = torch.ones_like(x)
    mask[1, :3] = 0
    store = traced(
        tmp_path / "a.duckdb", model, lambda: model.generate(x * mask, attention_mask=mask, max_new_tokens=4, do_sample=False)
    )
    assert store.rows(FORWARDS) == [("prefill", 2, 11), ("decode", 2, 2), ("decode", 2, 2), ("decode", 2, 2)]
    assert store.rows("select sequence, list(position order by token) from tokens group by all order by 1") == [
        (0, list(range(10))),
        (1, list(range(7))),
    ]
    assert store.rows("select generated, count(*) from tokens group by all order by 1") == [(False, 11), (True, 6)]


def test_beams_know_their_parents(tmp_path: Path) -> None:
    """Rows are beams; after a reordering every token names the one before it in its own hypothesis."""
    model, x = mixtral(), ids(1, 5)
    store = traced(tmp_path / "a.duckdb", model, lambda: model.generate(x, max_new_tokens=6, num_beams=3, do_sample=False))
    assert store.rows("select sequence, count(*) from tokens group by all order by 1") == [(0, 10), (1, 10), (2, 10)]
    steps = store.rows(
        "select count(*) from tokens t join tokens p on p.token = t.parent "
        "where t.position <> p.position + 1 or p.token >= t.token"
    )
    assert steps == [(0,)]
    assert store.rows("select count(*) > 0 from tokens where parent is not null") == [(True,)]


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunked_prefill_gives_the_same_decisions(tmp_path: Path, chunk: int) -> None:
    """The same tokens, positions and experts as in one piece."""
    model, x = mixtral(), ids(1, 7)
    plain = traced(tmp_path / "a.duckdb", model, lambda: model.generate(x, max_new_tokens=3, do_sample=False))
    chunked = traced(
        tmp_path / "b.duckdb", model, lambda: model.generate(x, max_new_tokens=3, do_sample=False, prefill_chunk_size=chunk)
    )
    one, other = plain.rows(ROUTE, [0]), chunked.rows(ROUTE, [0])
    assert [row[:4] for row in one] == [row[:4] for row in other]
    assert max(abs(a[4] - b[4]) for a, b in zip(one, other)) < 1e-5


def test_alone_in_a_batch_and_by_generation_agree(tmp_path: Path) -> None:
    """Who shares the batch, and whether a token comes with the prompt or from the cache, changes no expert here."""
    model, x = mixtral(), ids(1, 6)
    y = torch.cat([torch.zeros(1, 2, dtype=torch.long), x], 1)
    batch, mask = torch.cat([y, ids(1, 8, 5)]), torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    full = model.generate(x, max_new_tokens=4, do_sample=False)
    routes = [
        traced(tmp_path / "a.duckdb", model, lambda: model(full[:, :-1])).rows(ROUTE, [0]),
        traced(tmp_path / "b.duckdb", model, lambda: model.generate(x, max_new_tokens=4, do_sample=False)).rows(ROUTE, [0]),
        traced(
            tmp_path / "c.duckdb", model, lambda: model.generate(batch, attention_mask=mask, max_new_tokens=4, do_sample=False)
        ).rows(ROUTE, [0]),
    ]
    for other in routes[1:]:
        assert [row[:4] for row in other] == [row[:4] for row in routes[0]]
        assert max(abs(a[4] - b[4]) for a, b in zip(other, routes[0])) < 1e-5


def test_rejected_drafts_are_kept_apart(tmp_path: Path) -> None:
    """What assisted decoding routed and threw away is labelled, and the rest is the greedy record."""
    model = mixtral()
    x = ids(1, 4).repeat(1, 3)
    store = traced(
        tmp_path / "a.duckdb", model, lambda: model.generate(x, max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=3)
    )
    plain = traced(tmp_path / "b.duckdb", model, lambda: model.generate(x, max_new_tokens=8, do_sample=False))
    drafts = "(select token from token_labels where kind = 'draft')"
    kept = f"select position, vocab_id from tokens anti join {drafts} using (token) order by 1"
    assert store.rows("select count(*) > 0 from token_labels where kind = 'draft' and label = 'rejected'") == [(True,)]
    one, other = store.rows(kept), plain.rows(kept)
    assert one[: len(other)] == other[: len(one)]
    assert len(one) >= len(other) - 1


def test_two_generations_at_once(tmp_path: Path) -> None:
    """Caches that take turns keep their own sequences."""
    model, x, y = mixtral(), ids(1, 4), ids(1, 5, 3)

    def run() -> None:
        a, b = model(x, use_cache=True).past_key_values, model(y, use_cache=True).past_key_values
        for step in range(3):
            model(ids(1, 1, step), past_key_values=a)
            model(ids(1, 1, step + 9), past_key_values=b)

    store = traced(tmp_path / "a.duckdb", model, run)
    counts = store.rows("select sequence, count(*), max(position) from tokens group by 1 order by 1")
    assert counts == [(0, 7, 6), (1, 8, 7)]
    from transformers import DynamicCache

    assert DynamicCache.crop.__qualname__.startswith("Cache") or "Dynamic" in DynamicCache.crop.__qualname__
