"""Do content words recurse more than function words? `python -m specimens.systems.measures.mor [OTHER ...]`.

Held-out prose and licences with silver parts of speech, one window of up to 256 tokens a forward, so that no capacity is shared
with padding. What parts of speech tell of depth, and how deep each goes, is asked of `moescope analyze depth`. No analysis sets
two groups of labels side by side, so that is done here: the unit is a word, the mean depth of its pieces; also words of one
piece alone, and these compared among words of about the same frequency; labels are dealt anew among the content and function
words of a sentence, and intervals are over source documents. OTHER are folders of further trainings
(`python -m specimens.systems.mor --seed 21 --folder OTHER`).
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer

import moescope
import moescope.statistics as st
from moescope import analyses
from moescope.analyses import Answer
from moescope.inputs import shipped
from specimens.systems.measures.shared import also, both, cell, draw, fill, q_said, table, verdict
from specimens.systems.mor import NAME, READ, SEED, TOKENIZER

DRAWS = 199
CONTENT = {"NOUN", "PROPN", "VERB", "ADJ", "ADV"}
FUNCTION = {"ADP", "AUX", "CCONJ", "DET", "PART", "PRON", "SCONJ"}
SQL = """select s.source_row, s.document, any_value(l.label) as domain, t.word, any_value(p.label) as upos,
avg(n.depth) as depth, count(*) as pieces, any_value(t.vocab_id) as vocab
from token_depth n join tokens t using (token) join sequences s using (sequence)
join sequence_labels l on l.sequence = s.sequence and l.kind = 'domain'
join token_labels p on p.token = t.token and p.kind = 'upos'
where t.word is not null group by all order by all"""


def sentences(file: Path) -> list[list[int]]:
    """For each passage of the file, the number of its sentence for each word."""
    found: list[list[int]] = []
    for number, block in enumerate(gzip.decompress(file.read_bytes()).decode().strip().split("\n\n")):
        lines = block.split("\n")
        if any(line.startswith("# newdoc") for line in lines):
            found.append([])
        found[-1] += [number] * sum(line[:1].isdigit() for line in lines)
    return found


@dataclass(frozen=True)
class Found:
    """Of one model: a row a word (depth, part of speech, sentence, source document, pieces, vocabulary id), and the answer."""

    words: pd.DataFrame
    answer: Answer


def ask(model: Any, store: Path) -> Found:
    """Traces both kinds of text as one run, and asks what the part of speech tells of depth."""
    file = store.with_suffix(".conllu.gz")
    file.write_bytes(b"".join((shipped()["text"] / f"{domain}.conllu.gz").read_bytes() for domain in READ))
    moescope.trace(model, file, store, tokenizer=AutoTokenizer.from_pretrained(TOKENIZER), batch_size=1, max_length=256)
    with moescope.open(store) as found:
        names = ["passage", "source", "domain", "word", "upos", "depth", "pieces", "vocab"]
        frame = pd.DataFrame(found.rows(SQL), columns=names)
    numbers = sentences(file)
    frame["sentence"] = [numbers[p][w] for p, w in zip(frame.passage, frame.word)]
    return Found(frame, analyses.run("depth", store, kinds="upos"))


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


def by_part(answer: Answer) -> pd.DataFrame:
    """Figures of every part of speech with 100 tokens or more, the deepest first."""
    frame = answer.figures("mean depth by label")
    frame = frame[frame["subset"].str.startswith("upos=") & (frame["n"] >= 100)]
    part = frame["subset"].str.partition("=")[2]
    group = part.map(lambda p: "content" if p in CONTENT else "function" if p in FUNCTION else "other")
    return frame.assign(part=part, group=group).sort_values("value", ascending=False)


def contrasts(found: dict[str, Found]) -> str:
    """Content less function words, of every model."""
    rows = []
    for name, one in found.items():
        frame, single = one.words, one.words[one.words.pieces == 1].reset_index(drop=True)
        rows.append([name, "all words", *compared(frame)])
        if "seed" not in name:
            rows += [[name, domain, *compared(frame[frame.domain == domain].reset_index(drop=True))] for domain in READ]
        rows.append([name, "words of one piece", *compared(single)])
        rows.append([name, "of one piece, of like frequency", *compared(single, frequency(single))])
    return table(["", "words", "content and function words", "difference in depth", "null, 95 %", "p"], rows)


def report(found: dict[str, Found]) -> str:
    """Three tables, and what the analysis says of the trained model."""
    bits = []
    for name, one in found.items():
        told = one.answer.figures("I(label; depth) (bits)", estimator="less null mean", subset="upos").iloc[0]
        bits.append([name, cell(told), f"{told['null_mean']:.4f}", q_said([told])])
    parts = [
        [row["part"], row["group"], f"{row['n']:,}", cell(row), f"{row['null_mean']:.3f}", q_said([row])]
        for _, row in by_part(found["trained"].answer).iterrows()
    ]
    return "\n\n".join([
        table(["", "I(part of speech; depth)", "mean of null", "q"], bits),
        f"`moescope analyze depth`:\n\n{verdict('trained', found['trained'].answer)}", contrasts(found),
        table(["part of speech (trained)", "group", "tokens", "depth of 1 to 3", "mean of null", "q"], parts),
    ])  # fmt: skip


def picture(answer: Answer) -> Any:
    """Depth by part of speech with whiskers."""
    frame = by_part(answer)[["part", "group", "value", "ci_low", "ci_high"]]
    base = alt.Chart(frame).encode(y=alt.Y("part:N", sort=None, title=None))
    x = alt.X("value:Q", title="mean depth (recursions), 95 % over source documents", scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=60).encode(x=x, color=alt.Color("group:N", title=None))
    return (base.mark_rule().encode(x=alt.X("ci_low:Q"), x2="ci_high:Q") + points).properties(width=420, height=300)


def main() -> None:
    """Traces, asks, and fills the report."""
    torch.set_num_threads(1)
    models = both(NAME, SEED)
    for trained, untrained, seed in (also(NAME, other) for other in sys.argv[1:]):
        models |= {f"trained, seed {seed}": trained, f"untrained, seed {seed}": untrained}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: ask(model, Path(folder) / f"{n}.duckdb") for n, (name, model) in enumerate(models.items())}
    draw("mor", picture(found["trained"].answer))
    fill(NAME, report(found))


if __name__ == "__main__":
    main()
