"""How tokens are read: a vocabulary may write bytes as letters ("âĢĶ" is "—", "Ġ" a space), as GPT-2, Llama 3 and Qwen do.

What is stored stays: `moescope trace` keeps the text that a tokenizer reads a token as, and the token as its vocabulary writes
it where that is a part of a letter; an import keeps what its capture says. Whatever is shown goes through `Spelling`, which
knows which of the two a vocabulary in the store is, since "é" is a letter in one and half a letter in the other.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .reader import Store

Ask = Callable[..., pd.DataFrame]  # (sql, *params): the rows
KIND = """
select count(*) filter (contains(v.text, 'Ġ') or contains(v.text, 'Ċ')) as marks,
       count(*) filter (contains(v.text, '▁') or contains(v.text, ' ') or starts_with(v.text, '##')) as plain,
       list(v.text order by v.vocab_id) filter (regexp_matches(v.text, '^[!-~]*[Â-ô][Ģ-Ń¡-¿]')) [:200] as letters
from vocab v join runs r using (model) where r.run = ?"""
WORDS = "select v.vocab_id, any_value(v.text) as text from vocab v join runs r using (model) where r.run = ? group by 1"


def _letters() -> dict[str, int]:
    """Which byte each letter stands for (bytes_to_unicode of GPT-2's released encoder.py)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTES = _letters()
LETTERS = {byte: letter for letter, byte in BYTES.items()}
_RUN = re.compile(f"[{re.escape(''.join(BYTES))}]+")
_PIECE = re.compile(r"(?:<0x[0-9A-F]{2}>)+")  # of SentencePiece
# Letters that do not stand beside another foreign one in any text, but do where bytes are written as letters.
_ODD = frozenset(map(chr, range(0x122, 0x141))) | frozenset("¢¤¦¨ª¬¯±´µ¶¸¼½¾")


def _partial(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return f"⟨{error.object[error.start : error.end].hex(' ').upper()}⟩", error.end


codecs.register_error("moescope-partial", _partial)


def _read(raw: bytes) -> str:
    """Bytes as text; those that are no whole letter as ⟨E2 80⟩."""
    return raw.decode("utf-8", "moescope-partial").replace("⟩⟨", " ")


def _bytes(letters: str) -> bytes:
    return bytes(BYTES[letter] for letter in letters)


def _torn(text: str) -> bool:
    """Whether a token among others that are text already is a part of a letter, as its vocabulary writes it.

    One foreign letter alone may be either, and is left as it stands.
    """
    if len(text) < 2 or any(letter not in BYTES for letter in text) or _whole(text):
        return False
    high = all(BYTES[letter] >= 128 for letter in text[text[0] in "ĠĊ" :])
    return high and (text[0] in "ĠĊ" or any(letter in _ODD for letter in text))


def _whole(text: str) -> bool:
    try:
        return bool(_bytes(text).decode())
    except (KeyError, UnicodeDecodeError):
        return False


@dataclass(frozen=True)
class Spelling:
    """One vocabulary. `letters`: all of its tokens are bytes, written as letters; else those are that are parts of a letter."""

    letters: bool

    def __call__(self, text: Any) -> Any:
        """A token as one reads it, parts of a letter as ⟨E2 80⟩; what is no text as it is."""
        return self.joined([text]) if isinstance(text, str) and text else text

    def joined(self, tokens: Iterable[str]) -> str:
        """The text of tokens that follow each other: parts of a letter are one where they are whole together."""
        pieces = [one.removesuffix("</w>") + " " if one.endswith("</w>") else one for one in tokens]
        if self.letters:
            return _RUN.sub(lambda run: _read(_bytes(run[0])), "".join(pieces))
        text = "".join(_read(_bytes(part)) if torn else part for torn, part in _parts(pieces))
        return _PIECE.sub(lambda run: _read(bytes.fromhex(run[0].replace("<0x", "").replace(">", ""))), text)

    def column(self, frame: pd.DataFrame, name: str = "text") -> pd.DataFrame:
        """The frame with this column as one reads it."""
        return frame.assign(**{name: frame[name].map(self)}) if len(frame) else frame

    def written(self, text: str) -> str:
        """How this vocabulary writes a text that is looked for."""
        return "".join(LETTERS[byte] for byte in text.encode("utf-8", "replace")) if self.letters else text


AS_READ = Spelling(letters=False)  # of what `moescope trace` keeps


def _parts(tokens: Iterable[str]) -> list[tuple[bool, str]]:
    """Neighbours that are parts of a letter, together; and the others."""
    found: list[tuple[bool, str]] = []
    for token in tokens:
        behind = bool(found) and found[-1][0]
        torn = _torn(token) or (behind and all(128 <= BYTES.get(letter, 0) < 192 for letter in token))
        if torn and behind:
            found[-1] = True, found[-1][1] + token
        else:
            found.append((torn, token))
    return found


def of(ask: Ask, run: int) -> Spelling:
    """How the model of a run writes its tokens: by marks of white space, else by whether its letters are whole as bytes."""
    row = ask(KIND, run).iloc[0]
    if row["marks"] or row["plain"]:
        return Spelling(bool(row["marks"] > row["plain"]))
    letters = [] if row["letters"] is None or row["letters"] is pd.NA else list(row["letters"])
    return Spelling(bool(letters) and 2 * sum(map(_whole, letters)) >= len(letters))


def of_store(store: Store, run: int) -> Spelling:
    """`of`, where a Store is at hand."""
    return of(lambda sql, *params: store.sql(sql, params).df(), run)


def words(store: Store, run: int) -> dict[int, str]:
    """{vocabulary id: the token as one reads it} of the model of a run."""
    spelled = of_store(store, run)
    return {number: spelled(text) for number, text in store.rows(WORDS, [run])}
