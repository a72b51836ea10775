"""Do content words recurse more than function words? `python -m specimens.systems.measures.mor [OTHER ...]`.

Held-out prose and licences with silver parts of speech, one window of up to 256 tokens a forward, so that no capacity is shared
with padding. The unit is a word: the mean depth of its pieces; also words of one piece alone, and these compared among words of
about the same frequency. Labels are dealt anew among the content and function words of a sentence; intervals are over source
documents. OTHER are folders of further trainings (`python -m specimens.systems.mor --seed 21 --folder OTHER`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer

import moescope
import moescope.statistics as st
from moescope.inputs import shipped
from specimens.systems.measures.shared import DRAWS, also, both, draw, fill, table
from specimens.systems.mor import NAME, READ, SEED, TOKENIZER

CONTENT = {"NOUN", "PROPN", "VERB", "ADJ", "ADV"}
FUNCTION = {"ADP", "AUX", "CCONJ", "DET", "PART", "PRON", "SCONJ"}
SQL = """select s.source_row, s.document, t.word, any_value(p.label) as upos, avg(n.depth) as depth,
count(*) as pieces, any_value(t.vocab_id) as vocab
from token_depth n join tokens t using (token) join sequences s using (sequence)
join token_labels p on p.token = t.token and p.kind = 'upos'
where t.word is not null group by all order by all"""


def sentences(file: Path) -> list[list[int]]:
    """For each passage of the file, the number of its sentence for each word."""
    found: list[list[int]] = []
    for number, block in enumerate(file.read_text(encoding="utf-8").strip().split("\n\n")):
        lines = block.split("\n")
        if any(line.startswith("# newdoc") for line in lines):
            found.append([])
        found[-1] += [number] * sum(line[:1].isdigit() for line in lines)
    return found


def words(model: Any, folder: Path) -> pd.DataFrame:
    """One row a word: depth, part of speech, sentence, source document, pieces, vocabulary id."""
    tokenizer, frames = AutoTokenizer.from_pretrained(TOKENIZER), []
    for domain in READ:
        store, file = folder / f"{domain}.duckdb", shipped()["text"] / f"{domain}.conllu.gz"
        moescope.trace(model, file, store, tokenizer=tokenizer, batch_size=1, max_length=256)
        with moescope.open(store) as found:
            names = ["passage", "source", "word", "upos", "depth", "pieces", "vocab"]
            frame = pd.DataFrame(found.rows(SQL), columns=names)
        numbers = sentences(file)
        frame["sentence"] = [f"{domain} {numbers[p][w]}" for p, w in zip(frame.passage, frame.word)]
        frames.append(frame.assign(domain=domain))
    return pd.concat(frames, ignore_index=True)


def difference(sums: np.ndarray) -> np.ndarray:
    """Mean depth of content less that of function words, from (..., strata, 2, 2): [content, function] x [depth, words]."""
    mean = sums[..., 0] / np.maximum(sums[..., 1], 1)
    weight = np.where((sums[..., 1] > 0).all(-1), sums[..., 1].sum(-1), 0)
    return ((mean[..., 0] - mean[..., 1]) * weight).sum(-1) / np.maximum(weight.sum(-1), 1)


def compared(frame: pd.DataFrame, strata: np.ndarray | None = None) -> list[str]:
    """Difference with its interval, the null's 95 %, and p on both sides."""
    known = frame.upos.isin(CONTENT | FUNCTION).to_numpy()
    frame, bins = frame[known], (np.zeros(len(frame), int) if strata is None else strata)[known]
    function = frame.upos.isin(FUNCTION).to_numpy().astype(int)
    source, sentence = (np.unique(frame[name], return_inverse=True)[1] for name in ("source", "sentence"))
    counts = np.zeros((source.max() + 1, bins.max() + 1, 2, 2))
    np.add.at(counts, (source, bins, function), np.stack([frame.depth, np.ones(len(frame))], 1))
    value, low, high = st.over_documents(difference, counts)
    null = np.array([_sums(frame.depth.to_numpy(), bins, dealt) for dealt in st.permuted(function, DRAWS, within=sentence)])
    drawn = difference(null)
    low0, high0 = np.quantile(drawn, [0.025, 0.975])
    p = float(st.p_value(value, drawn, "both"))
    return [f"{len(frame):,}", f"{value:+.3f} [{low:+.3f}, {high:+.3f}]", f"[{low0:+.3f}, {high0:+.3f}]", f"{p:.3f}"]


def _sums(depth: np.ndarray, bins: np.ndarray, function: np.ndarray) -> np.ndarray:
    made = np.zeros((bins.max() + 1, 2, 2))
    np.add.at(made, (bins, function), np.stack([depth, np.ones(len(depth))], 1))
    return made


def frequency(frame: pd.DataFrame) -> np.ndarray:
    """Each word's bin by how often its vocabulary id stands in these texts: 1, 2-3, 4-7, ..."""
    return np.log2(frame.groupby("vocab").vocab.transform("size")).astype(int).to_numpy()


def by_part(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean depth of every part of speech with 100 words or more, with an interval over source documents."""
    rows = []
    source = np.unique(frame.source, return_inverse=True)[1]
    for part, some in frame.groupby("upos"):
        counts = np.zeros((source.max() + 1, 2))
        np.add.at(counts, source[some.index], np.stack([some.depth, np.ones(len(some))], 1))
        value, low, high = st.over_documents(lambda c: c[..., 0] / c[..., 1], counts)
        group = "content" if part in CONTENT else "function" if part in FUNCTION else "other"
        rows.append({"part": part, "group": group, "words": len(some), "depth": value, "low": low, "high": high})
    made = pd.DataFrame(rows)
    return made[made.words >= 100].sort_values("depth", ascending=False)


def report(frames: dict[str, pd.DataFrame]) -> str:
    """Two tables."""
    rows = []
    for name, frame in frames.items():
        single = frame[frame.pieces == 1].reset_index(drop=True)
        rows.append([name, "all words", *compared(frame)])
        if "seed" not in name:
            rows += [[name, domain, *compared(frame[frame.domain == domain].reset_index(drop=True))] for domain in READ]
        rows.append([name, "words of one piece", *compared(single)])
        rows.append([name, "of one piece, of like frequency", *compared(single, frequency(single))])
    head = ["", "words", "content and function words", "difference in depth", "null, 95 %", "p"]
    parts = [
        [r.part, r.group, f"{r.words:,}", f"{r.depth:.3f} [{r.low:.3f}, {r.high:.3f}]"]
        for r in by_part(frames["trained"]).itertuples()
    ]
    return f"{table(head, rows)}\n\n{table(['part of speech (trained)', 'group', 'words', 'depth of 1 to 3'], parts)}"


def picture(frame: pd.DataFrame) -> Any:
    """Depth by part of speech with whiskers."""
    base = alt.Chart(by_part(frame)).encode(y=alt.Y("part:N", sort=None, title=None))
    x = alt.X("depth:Q", title="mean depth (recursions), 95 % over source documents", scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=60).encode(x=x, color=alt.Color("group:N", title=None))
    return (base.mark_rule().encode(x=alt.X("low:Q"), x2="high:Q") + points).properties(width=420, height=300)


def main() -> None:
    """Traces, counts, and fills the report."""
    torch.set_num_threads(1)
    frames = {}
    with tempfile.TemporaryDirectory() as folder:
        models = both(NAME, SEED)
        for trained, untrained, seed in (also(NAME, other) for other in sys.argv[1:]):
            models |= {f"trained, seed {seed}": trained, f"untrained, seed {seed}": untrained}
        for name, model in models.items():
            (Path(folder) / name).mkdir()
            frames[name] = words(model, Path(folder) / name)
    draw("mor", picture(frames["trained"]))
    fill(NAME, report(frames))


if __name__ == "__main__":
    main()
