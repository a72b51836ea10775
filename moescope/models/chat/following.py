"""What a model makes behind a conversation, token by token: which of it is thought, by the marks that the template names."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .reasoning import Pairs

State = tuple[bool, tuple[int, ...]]
"""Whether the next token is thought; the last tokens, where a mark may have begun."""


@dataclass(frozen=True)
class Following:
    """`opens`: ids of marks that begin a thought, `closes`: those that end one; `begins`: before the first token."""

    opens: tuple[tuple[int, ...], ...]
    closes: frozenset[int]
    begins: State

    def step(self, state: State, token: int) -> tuple[State, bool]:
        """The state behind a token, and whether it is thought; a mark is not."""
        thinking, tail = state
        if thinking:
            return ((False, ()), False) if token in self.closes else (state, True)
        tail = (*tail, token)[-max(map(len, self.opens)) :]
        return (any(tail[-len(mark) :] == mark for mark in self.opens), tail), False


def following(tokenizer: Any, pairs: Pairs, thinking: bool) -> Following | None:
    """Of a tokenizer that writes what ends a thought as one token: else nobody knows that it ends before it has; then None."""
    known = [(_ids(tokenizer, [opens]), _ids(tokenizer, closes)) for opens, closes in pairs]
    whole = [(opens[0], [ids[0] for ids in closes if len(ids) == 1]) for opens, closes in known if opens]
    whole = [(opens, closes) for opens, closes in whole if closes]
    if not whole:
        return None
    ends = frozenset(end for _, closes in whole for end in closes)
    return Following(tuple(opens for opens, _ in whole), ends, (thinking, ()))


def _ids(tokenizer: Any, marks: Iterable[str]) -> list[tuple[int, ...]]:
    """Those that the tokenizer can write."""
    every = [tuple(tokenizer.encode(mark, add_special_tokens=False)) for mark in marks]
    return [ids for ids, mark in zip(every, marks) if ids and tokenizer.decode(list(ids)) == mark]
