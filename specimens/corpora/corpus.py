"""Splits the documents into training text and held-out passages, and keeps both under work-specimens/.

Held out are whole groups (files, sections, licence families, speeches, chapters), drawn by a hash of their name, so that
the split does not depend on what else is installed. `python -m specimens.corpora.corpus` prints what it found.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from specimens.corpora.sources import DOMAINS, Document

FOLDER = Path("work-specimens")
TRAINING_CHARACTERS = 4_000_000
PASSAGE_WORDS = (110, 240)
HELDOUT_WORDS = 9_000
PER_DOCUMENT = {"german": 4}
SURPLUS = {"law": 3.5, "maths": 4.0}
SHARED = {"maths": 0.35}
SHINGLE = 8


@dataclass(frozen=True)
class Passage:
    """A held-out stretch of one document, short enough for one sequence."""

    id: str
    domain: str
    source: str
    document: str
    text: str


def drawn(name: str) -> int:
    """A fixed pseudo-random number for a name: the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def words(text: str) -> list[str]:
    """Words and runs of punctuation."""
    return re.findall(r"\w+|[^\w\s]+", text)


def units(document: Document) -> list[tuple[int, int]]:
    """Character spans a passage is put together from: top-level statements of code, lines of maths, sentences."""
    text = document.text
    if document.domain == "code":
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        nodes = ast.parse(text).body
        first = (min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]) for n in nodes)
        return [(starts[line - 1], starts[n.end_lineno or n.lineno]) for line, n in zip(first, nodes)]
    pattern = r"[^\n]+" if document.domain == "maths" else r"\S[^\n]*?(?:[.!?:;][\"”“’')]*(?=\s+[^\Wa-z]|\n|$)|(?=\n|$))"
    return [m.span() for m in re.finditer(pattern, text)]


def passages(document: Document, wanted: int) -> list[Passage]:
    """Up to `wanted` disjoint passages of consecutive units, from starts spread over the document."""
    spans, taken, found = units(document), set(), []
    for start in sorted(range(len(spans)), key=lambda n: drawn(f"{document.id}#{n}")):
        chosen = window(document.text, spans, start)
        if len(found) < wanted and chosen and taken.isdisjoint(chosen):
            taken.update(range(chosen.start - 1, chosen.stop + 1))
            text = document.text[spans[chosen[0]][0] : spans[chosen[-1]][1]].rstrip("\n")
            found.append(Passage(f"{document.id}#{start}", document.domain, document.source, document.id, text))
    return found


def window(text: str, spans: list[tuple[int, int]], start: int) -> range | None:
    """The units from `start` that make a passage of the wanted length, or None."""
    low, high = PASSAGE_WORDS
    for end in range(start, len(spans)):
        count = len(words(text[spans[start][0] : spans[end][1]]))
        if count >= low:
            return range(start, end + 1) if count <= high else None
    return None


def shingles(text: str) -> set[int]:
    """Hashes of every run of eight words, lower-cased."""
    found = [word.lower() for word in words(text)]
    return {hash(tuple(found[i : i + SHINGLE])) for i in range(len(found) - SHINGLE + 1)}


def without_repeats(documents: Iterable[Document]) -> list[Document]:
    """Documents less the paragraphs that an earlier one already had (licences quote one another at length)."""
    seen: set[str] = set()
    kept = []
    for document in documents:
        lines = [
            line
            for line in document.text.split("\n")
            if (key := re.sub(r"\W|\d", "", line.lower())) not in seen and (len(key) < 40 or not seen.add(key))
        ]
        kept.append(Document(**{**asdict(document), "text": "\n".join(lines)}))
    return [document for document in kept if len(document.text) > 500]


def split(documents: list[Document]) -> tuple[list[Document], list[Passage]]:
    """(training documents, held-out passages) of one domain. German man pages are trained on and never held out."""
    domain = documents[0].domain
    groups = sorted({d.group for d in documents if d.source != "manpages-de"}, key=lambda g: drawn(f"{domain}/{g}"))
    heldout: set[str] = set()
    count, found = 0, []
    largest = 0.02 * sum(len(d.text) for d in documents) if domain == "law" else float("inf")
    for group in groups:
        members = [d for d in documents if d.group == group]
        if count >= SURPLUS.get(domain, 1.5) * HELDOUT_WORDS or sum(len(d.text) for d in members) > largest:
            continue
        fresh = [p for d in members[:1] for p in passages(d, PER_DOCUMENT.get(domain, 2))]
        if fresh:
            heldout.add(group)
            found += fresh
            count += sum(len(words(p.text)) for p in fresh)
    training = sorted((d for d in documents if d.group not in heldout), key=lambda d: drawn(d.id))
    training = without_repeats(training) if domain in {"law", "german"} else training
    return limited(training), unseen(found, limited(training))


def limited(documents: list[Document]) -> list[Document]:
    """The first documents up to the training budget; a very long one gives only its beginning."""
    kept, total = [], 0
    for document in documents:
        if total < TRAINING_CHARACTERS:
            kept.append(Document(**{**asdict(document), "text": document.text[:150_000]}))
            total += len(kept[-1].text)
    return kept


def unseen(found: list[Passage], training: list[Document]) -> list[Passage]:
    """Passages of which under a fifth (maths: 35 %) of the eight-word runs occur in training, up to the wanted words."""
    seen = set().union(*(shingles(d.text) for d in training))
    kept, total = [], 0
    for passage in found:
        own = shingles(passage.text)
        if total < HELDOUT_WORDS and len(own & seen) <= SHARED.get(passage.domain, 0.2) * len(own):
            kept.append(passage)
            total += len(words(passage.text))
    return kept


def build() -> tuple[dict[str, list[Document]], list[Passage]]:
    """Training documents per domain and all held-out passages; held-out passages are also written as JSON lines."""
    training, heldout = {}, []
    for domain, read in DOMAINS.items():
        training[domain], fresh = split(list(read()))
        heldout += fresh
    FOLDER.mkdir(exist_ok=True)
    lines = (json.dumps(asdict(p), ensure_ascii=False) for p in heldout)
    (FOLDER / "heldout.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return training, heldout


def main() -> None:
    """Builds and prints documents and characters in training, documents, passages and words held out."""
    training, heldout = build()
    for domain, documents in training.items():
        mine = [p for p in heldout if p.domain == domain]
        print(
            f"{domain:7} training {len(documents):4} documents {sum(len(d.text) for d in documents):>9,} characters; "
            f"held out {len({p.document for p in mine})} documents, {len(mine)} passages, "
            f"{sum(len(words(p.text)) for p in mine):,} words"
        )


if __name__ == "__main__":
    main()
