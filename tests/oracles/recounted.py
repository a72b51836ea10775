"""A small store of two runs whose every decision is also a plain row of Python, so that whatever a page says can be counted
again by hand: an encoder of top-1 and a decoder of top-2 routers, drops, generated tokens, labels, documents of many tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from synthetic_scene import head

from moescope.store import RunWriter

EXPERTS, TEXTS, MADE = 4, 12, 3
LENGTHS = {"encoder": 6, "decoder": 22}  # and up to two more, so that documents differ in size
WORDS = ["▁the", "▁cat", "▁sat", "▁on", "▁a", "▁mat", "▁law"]
TAGS = ["DET", "NOUN", "VERB", "ADP", "DET", "NOUN", "NOUN"]
DOMAINS = ["code", "law", "prose"]
ROUTERS = [(0, "encoder", 0, 1), (1, "decoder", 0, 2), (2, "decoder", 1, 2), (3, "decoder", 2, 2)]  # router, stack, layer, k


@dataclass(frozen=True)
class Token:
    """One token of one run."""

    run: int
    token: int
    sequence: int
    stack: str
    position: int
    vocab: int
    document: str
    domain: str
    generated: bool
    forward: int
    phase: str

    @property
    def text(self) -> str:
        """As its model's vocabulary says it: every run is of a model of its own."""
        return WORDS[self.vocab] + "'" * self.run

    @property
    def upos(self) -> str:
        """Its label."""
        return TAGS[self.vocab]


@dataclass(frozen=True)
class Decision:
    """One router looked at one token. `chosen`: (expert, weight, dropped) by rank."""

    of: Token
    router: int
    layer: int
    chosen: tuple[tuple[int, float, bool], ...]
    entropy: float
    log_sum_exp: float
    margin: float

    @property
    def ran(self) -> list[int]:
        """Experts that ran, by rank."""
        return [expert for expert, _, dropped in self.chosen if not dropped]

    @property
    def first(self) -> int:
        """The first choice, dropped or not."""
        return self.chosen[0][0]


class Truth:
    """The rows of all runs; `runs` of them hold the same texts under other routing."""

    def __init__(self, runs: int = 2) -> None:
        self.tokens: list[Token] = []
        self.decisions: list[Decision] = []
        rng = Random(0)
        texts = [[rng.randrange(len(WORDS)) for _ in range(LENGTHS[s] + n % 3)] for n in range(TEXTS) for s in LENGTHS]
        for run in range(runs):
            self._run(run, texts, rng)

    def of(self, run: int, router: int | None = None, stack: str | None = None) -> list[Decision]:
        """The decisions of a run."""
        return [d for d in self.decisions if d.of.run == run and router in (None, d.router) and stack in (None, d.of.stack)]

    def _run(self, run: int, texts: list[list[int]], rng: Random) -> None:
        forward = max((t.forward for t in self.tokens), default=-1) + 1
        for number in range(TEXTS):
            for place, stack in enumerate(LENGTHS):
                ids = texts[2 * number + place]
                made = MADE if stack == "decoder" else 0
                for position, vocab in enumerate(ids):
                    generated = position >= len(ids) - made
                    self.tokens.append(Token(
                        run, len(self.tokens), 2 * (number + TEXTS * run) + place, stack, position, vocab, f"d{number // 2}",
                        DOMAINS[number % 3], generated, forward, "decode" if generated else "prefill",
                    ))  # fmt: skip
                    forward += generated or position == len(ids) - made - 1
        for token in [t for t in self.tokens if t.run == run]:
            for router, stack, layer, k in ROUTERS:
                if stack == token.stack:
                    self.decisions.append(self._decide(token, router + len(ROUTERS) * run, layer, k, rng))

    def _decide(self, token: Token, router: int, layer: int, k: int, rng: Random) -> Decision:
        experts = [0, 1, 2] if layer == 2 else [0, 1, 2, 3]  # expert 3 of layer 2 is dead
        likes = [5 if e == (token.vocab + layer) % len(experts) else 1 for e in experts]
        first = rng.choices(experts, likes)[0]
        second = rng.choice([e for e in experts if e != first])
        weight = 0.5 + rng.randrange(32) / 64
        chosen = [(first, weight, rng.random() < 0.1), (second, 1 - weight, rng.random() < 0.1)]
        entropy, margin = rng.randrange(1, 1300) / 1024, rng.randrange(1, 60000) / 65536
        return Decision(token, router, layer, tuple(chosen[:k]), entropy, rng.randrange(1, 4000) / 1024, margin)


def written(path: Path, truth: Truth, routed: int = EXPERTS) -> Path:
    """The store of these rows; experts from `routed` on are identities, no routed experts."""
    for run in sorted({t.run for t in truth.tokens}):
        about = head(f"run {run}", {}, EXPERTS, 2, "switch_transformers", dataset="text", seconds=20.0, trace_seconds=1.0)
        about["routers"] = [
            {"router": r, "name": f"{stack}.{layer}.gate", "layer": layer, "stack": stack, "block_type": "ffn",
             "contract": "triple", "kind": "token_choice", "experts": routed, "top_k": k, "score": "softmax"}
            for r, stack, layer, k in ROUTERS
        ]  # fmt: skip
        roles = ["routed" if e < routed else "identity" for e in range(EXPERTS)]
        about["experts"] = [{"router": r, "expert": e, "role": role} for r in range(4) for e, role in enumerate(roles)]
        writer = RunWriter.create(path, about)
        _texts(writer, [t for t in truth.tokens if t.run == run])
        _routes(writer, truth.of(run))
        writer.close({"status": "complete", "finished": "2026-01-01 10:00:20"}, {"batches": 1})
    return path


def _texts(writer: RunWriter, tokens: list[Token]) -> None:
    base = tokens[0].token, tokens[0].sequence, tokens[0].forward  # a run's own numbers begin at 0
    sequences = {t.sequence: t for t in tokens}
    writer.add("sequences", {
        **_columns(sequences.values(), sequence=lambda t: t.sequence - base[1], document=lambda t: t.document,
                   stack=lambda t: t.stack, domain=lambda t: t.domain, source_row=lambda t: (t.sequence - base[1]) // 2),
        "source": "text.jsonl", "part": 0, "beam": 0, "tokens": [sum(x.sequence == s for x in tokens) for s in sequences],
        "text": [" ".join(x.text[1:] for x in tokens if x.sequence == s) for s in sequences],
    })  # fmt: skip
    labels = _columns(sequences.values(), sequence=lambda t: t.sequence - base[1], label=lambda t: t.domain)
    writer.add("sequence_labels", labels | {"kind": ["domain"] * len(sequences)})
    keys = {"token": lambda t: t.token - base[0], "sequence": lambda t: t.sequence - base[1], "position": lambda t: t.position,
            "vocab_id": lambda t: t.vocab, "generated": lambda t: t.generated}  # fmt: skip
    writer.add("tokens", _columns(tokens, **keys) | {"unit": "text", "special": False})
    writer.add("token_labels", _columns(tokens, token=keys["token"], label=lambda t: t.upos) | {"kind": ["upos"] * len(tokens)})
    writer.add("vocab", {"vocab_id": list(range(len(WORDS))), "text": [w + "'" * tokens[0].run for w in WORDS]})
    for forward in sorted({t.forward for t in tokens}):
        here = [t for t in tokens if t.forward == forward]
        writer.add("forwards", {"forward": [forward - base[2]], "phase": here[0].phase, "step": 0, "batch_size": 1,
                                "tokens": len(here), "seconds": 0.1})  # fmt: skip


def _columns(items: Iterable[Any], **of: Any) -> dict[str, list[Any]]:
    items = list(items)
    return {name: [f(item) for item in items] for name, f in of.items()}


def _routes(writer: RunWriter, decisions: list[Decision]) -> None:
    first, forward = decisions[0].of.token, decisions[0].of.forward
    router = min(d.router for d in decisions)
    writer.take("token", len({d.of.token for d in decisions}))
    writer.take("sequence", len({d.of.sequence for d in decisions}))
    writer.take("forward", len({d.of.forward for d in decisions}))
    for some in _alike(decisions):
        k = len(some[0].chosen)
        writer.add(f"routes_{k}", {
            "forward": np.uint32(some[0].of.forward - forward), "router": np.uint32(some[0].router - router),
            "iteration": np.uint8(0), "token": [d.of.token - first for d in some],
            "slots": np.uint64(sum(r << 4 * r for r in range(k))),
            "dropped": np.array([sum(d.chosen[r][2] << r for r in range(k)) for d in some], "u4"),
            **{name: np.array([getattr(d, name) for d in some], "f4") for name in ("entropy", "log_sum_exp", "margin")},
            **{f"e{r}": np.array([d.chosen[r][0] for d in some], "i2") for r in range(k)},
            **{f"w{r}": np.array([d.chosen[r][1] for d in some], "f4") for r in range(k)},
        })  # fmt: skip


def _alike(decisions: list[Decision]) -> Iterator[list[Decision]]:
    """Decisions of one router in one forward."""
    found: dict[tuple[int, int], list[Decision]] = {}
    for d in decisions:
        found.setdefault((d.router, d.of.forward), []).append(d)
    yield from found.values()


def ran(decisions: list[Decision], expert: int | None = None) -> int:
    """How often an expert (or any) ran."""
    return sum(e == expert or expert is None for d in decisions for e in d.ran)


def entropy(counts: list[int], base: float = 2.0) -> float:
    """Of counts, in units of log(base)."""
    p = np.array([c for c in counts if c]) / sum(counts)
    return float(-(p * np.log(p)).sum() / np.log(base))


def spread(
    value: float, draws: np.ndarray, units: int = 6, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """The 95 % interval over so many documents, by the formula of Hesterberg 2015, cut to bounds; NaN below five."""
    from scipy import stats

    wide = np.sqrt(units / (units - 1)) * stats.t.ppf(0.975, units - 1) / stats.norm.ppf(0.975)
    if units < 5:
        return float("nan"), float("nan")
    low, high = (float(value + wide * (np.quantile(draws, q) - draws.mean())) for q in (0.025, 0.975))
    return max(low, bounds[0]), min(high, bounds[1])
