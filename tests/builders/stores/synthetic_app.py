"""Synthetic stores for the dashboard: two text runs, an encoder–decoder run, an image run; and one store with hostile text.

Routing follows topic and word class with noise, so that every page has something to show.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_scene import Scene, head

from moescope.store import RunWriter

SENTENCES = {
    "code": "def route ( token ) : return softmax ( router ( token ) ) . topk ( 2 ) # the chosen experts",
    "law": "The party of the first part shall indemnify the holder against any claim arising under this agreement",
    "prose": "She walked slowly along the grey shore and thought of the letters he had never sent to her",
}
UPOS = {
    word: tag
    for tag, words in {
        "DET": "the any this", "ADP": "of", "CCONJ": "and", "PRON": "she he her", "AUX": "shall had", "PUNCT": "( ) : .",
        "PART": "to", "VERB": "walked return thought sent def", "ADV": "slowly never", "NUM": "2", "ADJ": "grey first chosen",
    }.items()
    for word in words.split()
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=fetch('http://example.invalid/')>",
    "A" * 4000,
    "\u202eלום שלום\u202c",
    "مرحبا",
    "\x00\x07\x1b[31m",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "'; drop table runs; --",
    "{{7*7}}",
    "</span></div>",
    "$x^2$",
    "**bold** `code`",
    "[a](javascript:alert(1))",
    "\n\n",
    "  ",
    ":material/home:",
    "&lt;b&gt;",
    "a\tb",
    "﷽",
    "<style>*{display:none}</style>",
]
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]


def add_sequence(writer: RunWriter, words: list[str], known: list[str], topic: int, **about: Any) -> dict[str, np.ndarray]:
    """One text: its sequence, tokens, vocabulary and labels. `generated` of `about` counts made tokens at the end."""
    made = about.pop("generated", 0)
    sequence, token = writer.take("sequence", 1), writer.take("token", len(words))
    number = np.arange(len(words))
    vocab = np.array([known.index(w) for w in words])
    writer.add(
        "sequences",
        {"sequence": [sequence], "part": 0, "beam": 0, "tokens": len(words) - made, "text": " ".join(words), **about},
    )
    if about.get("domain"):
        writer.add("sequence_labels", {"sequence": [sequence], "kind": "domain", "label": about["domain"]})
    writer.add(
        "tokens",
        {
            "token": token + number,
            "sequence": sequence,
            "position": number,
            "unit": "text",
            "vocab_id": vocab,
            "word": number,
            "special": False,
            "generated": number >= len(words) - made,
        },
    )
    writer.add("vocab", {"vocab_id": np.unique(vocab), "text": ["▁" + known[i] for i in np.unique(vocab)]})
    tags = [UPOS.get(w.lower(), "NOUN") for w in words]
    writer.add("token_labels", {"token": token + number, "kind": "upos", "label": tags})
    kinds = np.array([sorted({*UPOS.values(), "NOUN"}).index(t) for t in tags])
    return {"token": token + number, "topic": np.full(len(words), topic), "kind": kinds, "word": vocab % 4096}


def add_forward(
    writer: RunWriter,
    scene: Scene,
    routers: Iterable[int],
    tokens: dict[str, np.ndarray],
    phase: str = "prefill",
    drop: float = 0.0,
    logits: bool = False,
    step: int = 0,
    loss: float | None = None,
) -> None:
    """One forward pass over these tokens, through these routers."""
    forward = writer.take("forward", 1)
    count = len(tokens["token"])
    writer.add(
        "forwards",
        {"forward": [forward], "phase": phase, "step": step, "batch_size": 1, "tokens": count, "seconds": 0.1, "loss": [loss]},
    )
    for place, router in enumerate(routers):
        values = scene.logits(place, tokens["topic"], tokens["kind"], tokens["word"])
        key = {"forward": forward, "router": router, "iteration": 0, "token": tokens["token"]}
        writer.add(f"routes_{scene.top_k}", key | scene.routes(values, drop))
        if logits:
            writer.add("logits", key | {"logits": [row.astype("f4") for row in values]})


def recursive(store: Path) -> Path:
    """Two runs of a model without routers: tokens, and the dimensionality of two modules by cycle."""
    for seed in range(2):
        writer = RunWriter.create(store, head(f"recursive {seed}", {}, 0, 0, "hrm_text"))
        for document in range(6):
            add_sequence(writer, SENTENCES["prose"].split(), sorted({*SENTENCES["prose"].split()}), 0, document=f"{document}")
        writer.add("forwards", {"forward": [writer.take("forward", 1)], "phase": "prefill", "step": 0, "batch_size": 6})
        for module, count in (("H_module", 2), ("L_module", 6)):
            for estimator in ("naive", "unbiased"):
                value = 20 + seed + np.arange(count)
                where = {"name": "participation_ratio", "estimator": estimator, "subset": module, "iteration": np.arange(count)}
                writer.add(
                    "measures", where | {"value": value, "ci_low": value - 2.0, "ci_high": value + 2.0, "n": 90, "units": 6}
                )
        writer.close({"status": "complete"}, {})
    return store


def text_run(
    store: Path,
    name: str,
    seed: int = 0,
    documents: int = 24,
    finish: bool = True,
    words: list[str] | None = None,
    experts: int = 8,
    layers: int = 6,
) -> RunWriter:
    """A Mixtral-like run over three domains; `words` replaces the text (hostile tokens)."""
    writer = RunWriter.create(
        store,
        head(
            name, {"decoder": layers}, experts, 2, "mixtral", dataset="text", seconds=4.0, model_seconds=3.9, trace_seconds=0.06
        ),
    )
    scene = Scene(7, experts, layers, 2, dead=True)
    scene.rng = np.random.default_rng(seed)
    scene.bias = scene.bias + scene.rng.normal(0, 0.1 * seed, scene.bias.shape)
    known = sorted({w for s in SENTENCES.values() for w in s.split()} | set(words or ()))
    for number in range(documents):
        topic = number % 3
        domain = list(SENTENCES)[topic]
        order = np.random.default_rng(number)
        text = [str(w) for w in (words or [*SENTENCES[domain].split(), *order.choice(SENTENCES[domain].split(), 70)])]
        tokens = add_sequence(
            writer,
            text,
            known,
            topic,
            source="text.jsonl",
            source_row=number,
            document=f"{domain}-{number}",
            stack="decoder",
            domain=domain,
            generated=5,
        )
        prompt = {k: v[:-5] for k, v in tokens.items()}
        add_forward(writer, scene, range(layers), prompt, logits=number < 3)
        for i in range(len(text) - 5, len(text)):
            add_forward(writer, scene, range(layers), {k: v[i : i + 1] for k, v in tokens.items()}, phase="decode", step=i)
        writer.commit({"batches": number + 1, "sequences": number + 1, "total": 2 * documents})
    return done(writer, documents, finish)


def done(writer: RunWriter, batches: int, finish: bool = True) -> RunWriter:
    """Close the run, or leave it growing."""
    if finish:
        writer.close({"status": "complete", "finished": "2026-01-01 10:00:04"}, {"batches": batches})
    return writer


def switch_run(store: Path) -> None:
    """An encoder–decoder run, top-1, with dropped tokens."""
    about = head("switch-small", {"encoder": 3, "decoder": 3}, 8, 1, "switch_transformers", dataset="text", capacity=1.0)
    writer = RunWriter.create(store, about)
    scene = Scene(3, 8, 3, 1)
    known = sorted({w for s in SENTENCES.values() for w in s.split()} | {"<extra_id_0>", "<extra_id_1>"})
    for number in range(12):
        domain = list(SENTENCES)[number % 3]
        words = SENTENCES[domain].split()
        where = {"source": "text.jsonl", "source_row": number, "document": f"{domain}-{number}", "domain": domain}
        inside = [*words[:4], "<extra_id_0>", *words[6:12], "<extra_id_1>", *words[14:]]
        outside = ["<extra_id_0>", *words[4:6], "<extra_id_1>", *words[12:14]]
        for stack, text, first in (("encoder", inside, 0), ("decoder", outside, 3)):
            tokens = add_sequence(writer, text, known, number % 3, stack=stack, **where)
            add_forward(writer, scene, range(first, first + 3), tokens, drop=0.12)
    done(writer, 12)


def image_run(store: Path, images: int = 20, side: int = 7) -> None:
    """A V-MoE-like run over images of `side` × `side` patches."""
    writer = RunWriter.create(
        store, head("vmoe-fashion", {"vision": 3}, 8, 2, "vit_moe", dataset="fashion-mnist", capacity=1.05)
    )
    scene = Scene(5, 8, 3, 2)
    for number in range(images):
        name = CLASSES[number % 10]
        sequence, token = writer.take("sequence", 1), writer.take("token", side * side)
        place = np.arange(side * side)
        writer.add(
            "sequences",
            {
                "sequence": [sequence],
                "source": "images.npz",
                "source_row": number,
                "part": 0,
                "beam": 0,
                "class": name,
                "document": f"images.npz:{number}",
                "stack": "vision",
                "tokens": side * side,
                "height": side,
                "width": side,
            },
        )
        writer.add("sequence_labels", {"sequence": [sequence], "kind": "class", "label": name})
        writer.add(
            "tokens",
            {
                "token": token + place,
                "sequence": sequence,
                "position": place,
                "unit": "patch",
                "y": place // side,
                "x": place % side,
                "special": False,
                "generated": False,
            },
        )
        ring = np.minimum.reduce([place // side, place % side, side - 1 - place // side, side - 1 - place % side])
        tokens = {"token": token + place, "topic": np.full(side * side, number % 10), "kind": ring, "word": ring * 7}
        add_forward(writer, scene, range(3), tokens, drop=0.08)
    done(writer, images)


def demo(store: Path) -> Path:
    """Two text runs, an encoder–decoder run and an image run."""
    text_run(store, "mixtral-small")
    text_run(store, "mixtral-small, later", seed=1)
    switch_run(store)
    image_run(store)
    return store


def hostile(store: Path) -> Path:
    """A run whose name, tokens and labels try everything."""
    text_run(store, "<script>document.title='owned'</script>", documents=3, words=HOSTILE * 2)
    return store
