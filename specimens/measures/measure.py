"""The figures of a specimen on datasets/text: held-out loss, load, and what its routers tell apart.

`python -m specimens.measures.measure mixtral` (or switch, switch-collapsed) writes metrics.json beside the weights.
Everything is measured on the weights as shipped, rounded to bf16 and computed in float32.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from specimens.measures.heldout import Labelled, labelled
from specimens.measures.information import entropy, information
from specimens.measures.readings import mixtral, switch
from specimens.training.mixtral import untrained as from_seed

FOLDER = Path("moescope/models/specimens")
SWITCH_UNTRAINED = Path("work-specimens/switch-untrained")
ENGLISH = ("law", "prose")


@dataclass
class Tokens:
    """What one router did: per token its passage, its place there, its top-1 expert and whether it was executed."""

    passage: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    expert: list[int] = field(default_factory=list)
    load: np.ndarray = field(default_factory=lambda: np.zeros(8))
    dropped: int = 0


def router_figures(tokens: Tokens, texts: list[Labelled]) -> dict[str, object]:
    """Load entropy, dropped share, and information about domain, English part of speech and lexical class of code."""
    passage, expert = np.array(tokens.passage), np.array(tokens.expert)
    source = np.array([texts[p].id.rsplit("#", 1)[0] for p in passage])
    domains = np.array([texts[p].domain for p in passage])
    upos = np.array([texts[p].upos[w] for p, w in zip(tokens.passage, tokens.place)])
    xpos = np.array([texts[p].xpos[w] for p, w in zip(tokens.passage, tokens.place)])
    load = tokens.load / tokens.load.sum()
    chosen = {
        "domain": (domains, domains != "", True),
        "upos_english": (upos, np.isin(domains, ENGLISH) & (upos != ""), False),
        "class_code": (xpos, (domains == "code") & (xpos != ""), False),
        "class_maths": (xpos, (domains == "maths") & (xpos != ""), False),
    }
    found: dict[str, object] = {
        "tokens": len(passage),
        "load": [round(float(x), 4) for x in load],
        "load_entropy": round(entropy(tokens.load), 4),
        "dead_experts": [int(e) for e in np.flatnonzero(load < 0.001)],
        "dropped": round(tokens.dropped / len(passage), 4),
    }
    for name, (label, where, by_document) in chosen.items():
        codes = np.unique(label[where], return_inverse=True)[1]
        documents = np.unique(source[where], return_inverse=True)[1]
        found[name] = information(documents, codes, expert[where], 8, by_document=by_document)
    return found


def figures(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[Labelled], read: Callable) -> dict:
    """{'loss': per domain, 'routers': per router} of one model."""
    routers: dict[str, Tokens] = defaultdict(Tokens)
    nats, counted = defaultdict(float), defaultdict(int)
    model.eval()
    with torch.no_grad():
        for number, text in enumerate(texts):
            for reading in read(model, tokenizer, text.ids):
                nats[text.domain] += reading.nats
                counted[text.domain] += reading.counted
                for name, (places, expert, executed, load) in reading.routers.items():
                    mine = routers[name]
                    mine.passage += [number] * len(places)
                    mine.place += places
                    mine.expert += expert
                    mine.dropped += len(places) - sum(executed)
                    mine.load += load
    return {
        "loss": {d: round(nats[d] / counted[d], 4) for d in sorted(nats)}
        | {"all": round(sum(nats.values()) / sum(counted.values()), 4)},
        "targets": dict(sorted(counted.items())),
        "routers": {name: router_figures(tokens, texts) for name, tokens in routers.items()},
    }


def main(name: str) -> None:
    """Measures a specimen and its untrained twin, and writes both down."""
    family = name.split("-")[0]
    read, loader = {"mixtral": mixtral, "switch": switch}[family]
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / name)
    texts = labelled(tokenizer)
    trained = figures(loader(FOLDER / name, FOLDER / name), tokenizer, texts, read)
    start = from_seed() if family == "mixtral" else loader(FOLDER / name, SWITCH_UNTRAINED)
    untrained = figures(start, tokenizer, texts, read)
    found = {"data": "datasets/text", "passages": len(texts), "trained": trained, "untrained": untrained}
    (FOLDER / name / "metrics.json").write_text(json.dumps(found, indent=1) + "\n")
    for router, row in trained["routers"].items():
        print(
            router,
            "load entropy",
            row["load_entropy"],
            "dropped",
            row["dropped"],
            *(
                f"{label} {row[label]['bits']} (untrained {untrained['routers'][router][label]['bits']}, "
                f"shuffled {row[label]['shuffled']})"
                for label in ("domain", "upos_english", "class_code")
            ),
            sep="; ",
        )
    print("loss", trained["loss"], "untrained", untrained["loss"])


if __name__ == "__main__":
    main(sys.argv[1])
