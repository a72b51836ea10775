"""Writing CoNLL-U from which the text comes back exactly: `SpaceAfter=No`, and UDPipe's `SpacesAfter` where it is not one
space (newlines and indentation included)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ESCAPES = {"\\": "\\\\", " ": "\\s", "\t": "\\t", "\r": "\\r", "\n": "\\n", "|": "\\p"}


@dataclass(frozen=True)
class Word:
    """One word line; `after` is the white space that follows it in the text, head 0 is the root, None is not known."""

    form: str
    after: str
    upos: str = "_"
    xpos: str = "_"
    lemma: str = "_"
    feats: str = "_"
    head: int | None = None
    deprel: str = "_"

    def line(self, number: int) -> str:
        """The ten columns."""
        if self.after in ("", " "):
            misc = "_" if self.after else "SpaceAfter=No"
        else:
            misc = "SpacesAfter=" + "".join(ESCAPES.get(c, c) for c in self.after)
        head = "_" if self.head is None else str(self.head)
        columns = (self.form, self.lemma, self.upos, self.xpos, self.feats, head, self.deprel, "_", misc)
        return "\t".join([str(number), *(c or "_" for c in columns)])


def document(identifier: str, notes: dict[str, str], sentences: Iterable[list[Word]]) -> str:
    """One document: `# newdoc id`, its notes, then its sentences."""
    lines = [f"# newdoc id = {identifier}", *(f"# {key} = {value}" for key, value in notes.items())]
    for number, sentence in enumerate(sentences, start=1):
        text = "".join(w.form + (" " if w.after else "") for w in sentence).strip()
        lines += [f"# sent_id = {identifier}-{number}", f"# text = {text}"]
        lines += [word.line(n) for n, word in enumerate(sentence, start=1)]
        lines.append("")
    return "\n".join(lines)


def rebuilt(sentences: Iterable[list[Word]]) -> str:
    """The text the words stand for."""
    return "".join(word.form + word.after for sentence in sentences for word in sentence)
