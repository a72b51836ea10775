"""Reads datasets/text and lines its words up with a tokenizer's pieces, so that every token carries labels."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

FOLDER = Path("datasets/text")
ESCAPES = (("\\s", " "), ("\\t", "\t"), ("\\r", "\r"), ("\\n", "\n"), ("\\p", "|"), ("\\\\", "\\"))


@dataclass(frozen=True)
class Labelled:
    """One passage: its vocabulary ids and, per token, the UPOS and XPOS of the word it begins in ('' for none)."""

    id: str
    domain: str
    text: str
    ids: np.ndarray
    upos: list[str]
    xpos: list[str]


def after(misc: str) -> str:
    """The white space a MISC column stands for."""
    if "SpacesAfter=" not in misc:
        return "" if "SpaceAfter=No" in misc else " "
    value, found = misc.split("SpacesAfter=", 1)[1].split("|")[0], ""
    while value:
        escape, character = next(((e, c) for e, c in ESCAPES if value.startswith(e)), (value[0], value[0]))
        found, value = found + character, value[len(escape) :]
    return found


def read(path: Path) -> list[tuple[str, str, list[list[str]]]]:
    """(document id, domain, word lines) of a CoNLL-U file."""
    found: list[tuple[str, str, list[list[str]]]] = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line.startswith("# newdoc id = "):
            found.append((line.removeprefix("# newdoc id = "), path.name.partition(".")[0], []))
        elif line and not line.startswith("#"):
            found[-1][2].append(line.split("\t"))
    return found


def labelled(tokenizer: PreTrainedTokenizerBase) -> list[Labelled]:
    """All passages of datasets/text, without special tokens."""
    return [lined_up(*found, tokenizer) for path in sorted(FOLDER.glob("*.conllu.gz")) for found in read(path)]


def lined_up(identifier: str, domain: str, lines: list[list[str]], tokenizer: PreTrainedTokenizerBase) -> Labelled:
    """A token belongs to the word that its first character that is not white space lies in."""
    text, owner = "", []
    for number, columns in enumerate(lines):
        space = after(columns[9])
        text += columns[1] + space
        owner += [number] * len(columns[1]) + [-1] * len(space)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    words = [next((owner[at] for at in range(*span) if owner[at] >= 0), -1) for span in encoded["offset_mapping"]]
    upos, xpos = ([lines[w][column] if w >= 0 else "" for w in words] for column in (3, 4))
    return Labelled(identifier, domain, text, np.array(encoded["input_ids"]), upos, xpos)
