"""What a store says of sequences, row by row, to be set beside what really entered the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import moescope
from moescope.store.integrity.verify import verify

Row = tuple[Any, ...]


def traced(store: Path, model: torch.nn.Module, run: Callable[[Any], object], **settings: Any) -> moescope.Store:
    """A store of one run of `run(tracer)`; it is sound."""
    with torch.no_grad(), moescope.Tracer(model, store, **settings) as tracer:
        run(tracer)
    opened = moescope.open(store)
    assert [check for check in verify(opened) if check.broken] == []
    return opened


def texts(store: moescope.Store, stack: str = "decoder") -> list[list[int]]:
    """The vocabulary ids of every sequence, by position."""
    query = (
        "select list(vocab_id order by position), list(position order by position) from tokens join sequences using (sequence) "
        "where stack = ? and token not in (select token from token_labels where kind = 'draft') "
        "group by sequence order by sequence"
    )
    found = store.rows(query, [stack])
    assert all(positions == list(range(len(ids))) for ids, positions in found)
    return [ids for ids, _ in found]


def made(store: moescope.Store) -> list[str]:
    """Of every sequence of the decoder a letter a token: p for prompt, g for generated."""
    query = (
        "select string_agg(case when generated then 'g' else 'p' end, '' order by position) from tokens join sequences "
        "using (sequence) where stack = 'decoder' and token not in (select token from token_labels where kind = 'draft') "
        "group by sequence order by sequence"
    )
    return [letters for (letters,) in store.rows(query)]


def phases(store: moescope.Store) -> list[Row]:
    """(phase, tokens) of every forward."""
    return store.rows("select phase, tokens from forwards order by forward")


def warnings(store: moescope.Store) -> str:
    """All warnings of the run."""
    return str(store.rows("select warnings from runs")[0][0])
