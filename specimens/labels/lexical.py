"""Gold lexical classes by grammar: Python's own tokenizer for code, set.mm's own declarations for maths."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from functools import cache

from specimens.corpora.sources import SET_MM
from specimens.labels.conllu import Word

CLASSES = {
    tokenize.NAME: "name",
    tokenize.OP: "op",
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
}
Piece = tuple[int, int, str]


def code(text: str) -> list[list[Word]]:
    """Words of Python text: sentences are logical lines and whole-line comments; XPOS is the lexical class, UPOS X.

    A string or comment with white space in it gives one word per piece, all of its class.
    """
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    sentences: list[list[Piece]] = [[]]
    for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline):
        if token.type in CLASSES:
            begin, end = starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1]
            name = "keyword" if token.type == tokenize.NAME and keyword.iskeyword(token.string) else CLASSES[token.type]
            sentences[-1] += continued(text, sentences, begin)
            sentences[-1] += [(begin + m.start(), begin + m.end(), name) for m in re.finditer(r"\S+", text[begin:end])]
        elif token.type in (tokenize.NEWLINE, tokenize.NL) and closes(sentences[-1], token.type):
            sentences.append([])
    return spaced(text, [s for s in sentences if s], upos=lambda _: "X")


def closes(sentence: list[Piece], kind: int) -> bool:
    """A logical line ends at NEWLINE; a comment that stands alone ends with its line."""
    return bool(sentence) and (kind == tokenize.NEWLINE or all(name == "comment" for *_, name in sentence))


def continued(text: str, sentences: list[list[Piece]], begin: int) -> list[Piece]:
    """The backslash of a continued line, which the tokenizer keeps silent about."""
    last = next((s[-1][1] for s in reversed(sentences) if s), 0)
    return [(last + m.start(), last + m.end(), "continuation") for m in re.finditer(r"\\", text[last:begin])]


def spaced(text: str, sentences: list[list[Piece]], upos) -> list[list[Word]]:
    """Pieces with the white space that follows each."""
    begins = [begin for s in sentences for begin, *_ in s] + [len(text)]
    following = iter(begins[1:])
    return [[Word(text[b:e], text[e : next(following)], upos(name), name) for b, e, name in s] for s in sentences]


@cache
def declared() -> tuple[frozenset[str], dict[str, str]]:
    """(constants of `$c`, variables of `$v` with the type that `$f` gives them) of set.mm."""
    raw = re.sub(r"\$\(.*?\$\)", " ", SET_MM.read_text(encoding="utf-8"), flags=re.S)
    constants = {symbol for block in re.findall(r"\$c\s(.*?)\$\.", raw, re.S) for symbol in block.split()}
    variables = {symbol: kind for kind, symbol in re.findall(r"\s\$f\s+(\S+)\s+(\S+)\s+\$\.", raw)}
    return frozenset(constants), variables


def maths(text: str) -> list[list[Word]]:
    """One statement a sentence; XPOS label, keyword, constant or variable; FEATS the type of a variable."""
    sentences = []
    for line in text.splitlines(keepends=True):
        pieces = re.findall(r"(\S+)(\s*)", line)
        sentences.append([symbol(form, after, first=n == 0) for n, (form, after) in enumerate(pieces)])
    return sentences


def symbol(form: str, after: str, *, first: bool) -> Word:
    """The word of one symbol; a symbol that set.mm does not declare is an error, not a guess."""
    constants, variables = declared()
    if first or form.startswith("$"):
        return Word(form, after, "X", "label" if first else "keyword")
    if form in variables:
        return Word(form, after, "SYM", "variable", feats=f"VarType={variables[form]}")
    if form in constants:
        return Word(form, after, "SYM", "constant")
    raise ValueError(f"{form} is neither a constant nor a variable of set.mm")
