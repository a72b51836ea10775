"""Annotated corpora: CoNLL-U (Universal Dependencies) and STREUSLE's CONLLULEX, with gold labels on words.

An example is a document (`# newdoc`), its sentences joined by the white space that the file gives, and by an empty
line before `# newpar`; or a sentence, with --sentences and where the file marks no documents.
Labels of words: form, lemma, upos, xpos, feats, deprel; in CONLLULEX also supersense, supersense2, lexcat, lexlemma,
lextag, smwe, wmwe, ... as the file has them (a multiword expression's supersense is on its first word alone).
Labels of examples: `# domain`, `# genre`, `# meta::NAME`; in English-EWT and STREUSLE the genre is the start of the
document's id. Passages that say `# source_document` are drawn together by a bootstrap: it is their `document`.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path

from ._reading.files import suffix
from ._reading.options import Options
from ._reading.raw.byte_streams import lines, texts
from ._reading.raw.ud import Sentence, Token, malformed, sentences
from ._reading.types import Example, Word

SUFFIXES = frozenset({".conllu", ".conllulex"})
TAKES = frozenset({"sentences"})
EWT_GENRES = {"answers", "email", "newsgroup", "reviews", "weblog"}


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """Documents, or sentences, in order; raises InputError naming the line that is malformed."""
    source = options.name(path)
    row = 0
    for document, group in _documents(sentences(texts(lines(path, source, options)), source), source):
        shared, unit = _labels(document, group), group[0].comments.get("source_document") or document
        for part in [[s] for s in group] if options.sentences else [group]:
            text, words = _join(part, source)
            if words:
                yield Example(source, row, unit, text, labels={**shared, **_labels(document, part)}, words=words)
                row += 1


def _documents(found: Iterator[Sentence], source: str) -> Iterator[tuple[str, list[Sentence]]]:
    """Sentences by document; each sentence before the first `# newdoc` is its own."""

    def numbered() -> Iterator[tuple[str, Sentence]]:
        current, started = "", False
        for number, sentence in enumerate(found):
            new = {"newdoc", "newdoc id"} & sentence.comments.keys()
            started = started or bool(new)
            if new or not started:
                current = sentence.comments.get("newdoc id") or f"{source}:{number}"
            yield current, sentence

    for document, group in groupby(numbered(), key=lambda pair: pair[0]):
        yield document, [sentence for _, sentence in group]


def _labels(document: str, group: list[Sentence]) -> dict[str, str]:
    genre = document.partition("-")[0]
    labels = {"genre": genre} if genre in EWT_GENRES else {}
    for sentence in reversed(group):  # the first to say goes before the others
        for key, value in sentence.comments.items():
            if value and (key in ("domain", "genre") or key.startswith("meta::")):
                labels[key.removeprefix("meta::")] = value
    return labels


def _join(group: list[Sentence], source: str) -> tuple[str, tuple[Word, ...]]:
    text, words = "", []
    for index, sentence in enumerate(group):
        if text and not text[-1].isspace():
            text += "\n\n" if {"newpar", "newpar id"} & sentence.comments.keys() else _space_after(group[index - 1])
        piece, placed = place(sentence, source)
        words += [replace(w, start=w.start + len(text), end=w.end + len(text)) for w in placed]
        text += piece
    return text, tuple(words)


def _space_after(sentence: Sentence) -> str:
    return sentence.tokens[-1].after if sentence.tokens else ""


def place(sentence: Sentence, source: str) -> tuple[str, list[Word]]:
    """The sentence's text and its words in it: `# text`, or its forms and spaces where there is none or where they hold
    line breaks, which a comment cannot.

    Raises InputError where `# text` and the forms differ in more than white space.
    """
    tokens = sentence.tokens
    spelled = "".join(t.form + t.after for t in tokens[:-1]) + "".join(t.form for t in tokens[-1:])
    said = sentence.comments.get("text")
    breaks = said is not None and "\n" in spelled and said.split() == spelled.split()
    text = said if said and not breaks else spelled
    words: list[Word] = []
    end = 0
    for token in tokens:
        start = end + len(text[end:]) - len(text[end:].lstrip())
        if not text.startswith(token.form, start):
            raise malformed(source, token.line, f"{token.form!r} is not what `# text` has at character {start}")
        words += split_token(token, start)
        end = start + len(token.form)
    if text[end:].strip():
        raise malformed(source, sentence.line, f"no word covers {text[end:].strip()[:20]!r}, the end of `# text`")
    return text, words


def split_token(token: Token, start: int) -> list[Word]:
    """Words with their own characters where their forms make up the token's (do + n't), as in English.

    Where they do not (French `du` = de + le), the token is one word: form as written, other labels joined by '+'.
    """
    forms = [word["form"] for word in token.words]
    if "".join(forms) != token.form:
        names = dict.fromkeys(name for word in token.words for name in word)
        joined = {name: "+".join(word.get(name, "_") for word in token.words) for name in names}
        return [Word(start, start + len(token.form), {**joined, "form": token.form})]
    ends = list(accumulate(map(len, forms), initial=start))
    return [Word(start, end, word) for start, end, word in zip(ends, ends[1:], token.words)]
