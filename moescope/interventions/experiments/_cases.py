"""Pairs of a clean and a corrupted prompt, each with the token that is right and one that is wrong, from a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError

FIELDS = "prompt, true, foil, and subject (what is corrupted by noise) or corrupted (a prompt of as many tokens)"


@dataclass(frozen=True)
class Case:
    """`clean`, `corrupted` (T,) ids; noise (T, H), to be added to the embeddings of the corrupted prompt, or None."""

    clean: Tensor
    corrupted: Tensor
    noise: Tensor | None
    true: int
    foil: int


class Longer(ValueError):
    """A word that is more than one token."""


def cases(path: str, tokenizer: Any, model: Any, noise: float, seed: int) -> tuple[list[Case], int]:
    """The cases of a JSONL file, one object a line; text, or ids; and how many are left out.

    Left out are those whose right or wrong word does not continue the prompt by one token. InputError with the line of any
    other that cannot be used.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {path} of cases; give one JSON object a line with {FIELDS}")
    found, longer = [], 0
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.append(_case(row, tokenizer, model, noise, seed + number))
        except Longer:
            longer += 1
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"line {number} of {path} is no case ({error}); it takes {FIELDS}") from error
    if not found:
        why = f"in none of its {longer} cases are both words one token" if longer else "it is empty"
        raise InputError(f"{path} holds no case that can be used ({why}); give one JSON object a line with {FIELDS}")
    return found, longer


def _case(row: dict[str, Any], tokenizer: Any, model: Any, noise: float, seed: int) -> Case:
    clean = _ids(row["prompt"], tokenizer)
    true, foil = (_next(row["prompt"], clean, row[key], tokenizer) for key in ("true", "foil"))
    if "corrupted" in row:
        corrupted = _ids(row["corrupted"], tokenizer)
        if len(corrupted) != len(clean):
            raise ValueError(f"the prompts have {len(clean)} and {len(corrupted)} tokens")
        return Case(clean, corrupted, None, true, foil)
    places = _places(row, tokenizer, len(clean))
    weight = model.get_input_embeddings().weight.detach().float()
    drawn = torch.zeros(len(clean), weight.shape[1])
    generator = torch.Generator().manual_seed(seed)
    drawn[places] = torch.randn(len(places), weight.shape[1], generator=generator) * float(weight.std()) * noise
    return Case(clean, clean, drawn, true, foil)


def _ids(prompt: Any, tokenizer: Any) -> Tensor:
    if isinstance(prompt, list):
        return torch.tensor(prompt, dtype=torch.long)
    if tokenizer is None:
        raise ValueError("the model comes without a tokenizer, so prompts must be lists of ids")
    return torch.tensor(tokenizer(prompt)["input_ids"], dtype=torch.long)


def _next(prompt: Any, clean: Tensor, word: Any, tokenizer: Any) -> int:
    """The one token that continues the prompt by a word."""
    if isinstance(word, int):
        return word
    longer = tokenizer(f"{prompt} {word.strip()}")["input_ids"]
    if longer[:-1] != clean.tolist():
        raise Longer(f"{word!r} does not continue the prompt by one token")
    return int(longer[-1])


def _places(row: dict[str, Any], tokenizer: Any, length: int) -> list[int]:
    """Places of the subject's tokens."""
    subject = row["subject"]
    if isinstance(subject, list):
        if not subject or min(subject) < 0 or max(subject) >= length:
            raise ValueError(f"subject names places {subject} of a prompt of {length} tokens")
        return [int(place) for place in subject]
    start = row["prompt"].index(subject)
    offsets = tokenizer(row["prompt"], return_offsets_mapping=True)["offset_mapping"]
    found = [n for n, (a, b) in enumerate(offsets) if a < start + len(subject) and b > start and b > a]
    if not found:
        raise ValueError(f"no token of the prompt is of its subject {subject!r}")
    return found


@contextmanager
def noised(model: Any, noise: Tensor | None) -> Iterator[None]:
    """Add `noise` (T, H) to the embeddings of every row while this is open."""
    if noise is None:
        yield
        return
    handle = model.get_input_embeddings().register_forward_hook(lambda _, __, out: out + noise.to(out.device, out.dtype))
    try:
        yield
    finally:
        handle.remove()
