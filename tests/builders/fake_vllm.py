"""An engine with vLLM's interface and a scheduler that does whatever schedulers do, by chance; every decision is known.

A router's decision follows from the layer and from all tokens up to the one it looks at, so that a row told to another token,
or computed behind a guess that was wrong, is another decision.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

LAYERS, EXPERTS, TOP_K, VOCABULARY, BLOCK, LONGEST = (0, 2, 3), 8, 3, 40, 4, 64


def logits(layer: int, past: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """(EXPERTS,) what a router gives the last token of `past`."""
    rng = np.random.default_rng(zlib.crc32(repr((layer, past)).encode()))
    return rng.normal(size=EXPERTS).astype(np.float32)


def decision(layer: int, past: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(experts, weights): those of the largest logits, in an order that is no order of weights."""
    given = logits(layer, past)
    experts = np.argsort(-given)[:TOP_K][np.random.default_rng(zlib.crc32(given.tobytes())).permutation(TOP_K)]
    raised = np.exp(given[experts] - given[experts].max())
    return experts.astype(np.int32), (raised / raised.sum()).astype(np.float32)


def following(past: tuple[int, ...]) -> int:
    """The token that the model says next."""
    return zlib.crc32(repr(past).encode()) % VOCABULARY


@dataclass
class Asked:
    """A request, and how far it is."""

    name: str
    prompt: list[int]
    answer: int
    label: str | None = None
    stops: list[int] = field(default_factory=list)
    tokens: list[int] = field(init=False)  # known to the scheduler
    computed: int = 0
    cached: int = 0  # at its beginning
    begun: bool = False
    tail: bool = False  # nothing was forwarded since its last token was sampled
    seen: set[int] = field(default_factory=set)  # places that were forwarded and stayed

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def told(self) -> list[int]:
        """Tokens that a recorder can know: those forwarded, what was sampled behind them, the prompt."""
        return self.tokens[: max(len(self.prompt), max(self.seen, default=-1) + 1 + self.tail)]

    @property
    def done(self) -> bool:
        return len(self.tokens) >= len(self.prompt) + self.answer


class CPURouter:
    """Returns what its layer decides of the rows that the runner stands at; `silent` in some forwards."""

    top_k, global_num_experts, scoring_func, renormalize = TOP_K, EXPERTS, "softmax", True

    def __init__(self, layer: int, runner: "Runner") -> None:
        self.layer, self.runner = layer, runner

    def given(self) -> Any:
        """(rows, EXPERTS) its logits."""
        return torch.tensor(np.array([logits(self.layer, past) for past in self.runner.pasts]))

    def _compute_routing(self, hidden: Any, logits: Any = None, kind: Any = None, *, input_ids: Any = None) -> Any:
        found = [decision(self.layer, past) for past in self.runner.pasts]
        return torch.tensor(np.array([w for _, w in found])), torch.tensor(np.array([e for e, _ in found]), dtype=torch.int64)


class Runner:
    """A model runner: V1 keeps `input_batch`, V2 the state between forward and sampling; `waits`: tokens come as a tensor."""

    device, max_num_tokens = "cpu", LONGEST

    def __init__(self, v2: bool = False, waits: bool = False) -> None:
        self.v2, self.waits = v2, waits
        self.pasts: list[tuple[int, ...]] = []
        self.silent: set[int] = set()  # layers whose kernel calls no router
        self.said: dict[str, list[int]] = {}
        self.routers = [CPURouter(layer, self) for layer in LAYERS]
        self.execute_model_state: Any = None
        self.input_batch = SimpleNamespace(req_ids=[], prev_sampled_token_ids=None)
        self.input_ids = SimpleNamespace(gpu=torch.zeros(LONGEST, dtype=torch.int32))
        self.positions = torch.zeros(LONGEST, dtype=torch.int64)
        self.sequences: dict[str, list[int]] = {}

    def load_model(self) -> None:
        """As vLLM's."""

    def get_model(self) -> Any:
        """The routed layers."""
        modules = [
            SimpleNamespace(layer_name=f"model.layers.{r.layer}.mlp.experts", router=r, routed_scaling_factor=1.0)
            for r in self.routers
        ]
        return SimpleNamespace(modules=lambda: modules)

    def execute_model(self, output: Any) -> None:
        """A forward of `output.rows`: (name, start, tokens)."""
        rows = output.rows
        if not rows:
            return
        ids = [token for _, _, tokens in rows for token in tokens]
        positions = [start + n for _, start, tokens in rows for n in range(len(tokens))]
        self.pasts = []
        for name, start, tokens in rows:
            past = [*output.known[name][:start], *tokens]
            self.pasts += [tuple(past[: start + n + 1]) for n in range(len(tokens))]
        self.input_ids.gpu[: len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.positions[: len(ids)] = torch.tensor(positions)
        for router in self.routers:
            if router.layer not in self.silent:
                router._compute_routing(None, router.given())
        names = [name for name, _, _ in rows]
        self.input_batch.req_ids = names
        if self.v2:
            ends = np.cumsum([0, *(len(tokens) for _, _, tokens in rows)])
            own = SimpleNamespace(
                req_ids=names, query_start_loc_np=ends, input_ids=self.input_ids.gpu, positions=self.positions
            )
            self.execute_model_state = SimpleNamespace(input_batch=own)

    def sample_tokens(self, grammar: Any = None) -> Any:
        """What the scheduler prepared in `said`: tokens by request."""
        names = list(self.input_batch.req_ids)
        lists = [self.said.get(name, []) for name in names]
        self.execute_model_state = None
        wide = max((len(one) for one in lists), default=1) or 1
        tensor = torch.tensor([[*one, *[-1] * (wide - len(one))] for one in lists])
        if self.v2:
            inner = SimpleNamespace(req_ids=names)
            return SimpleNamespace(sampler_output=SimpleNamespace(sampled_token_ids=tensor), model_runner_output=inner)
        self.input_batch.prev_sampled_token_ids = tensor if self.waits else None
        return SimpleNamespace(req_ids=names, sampled_token_ids=[] if self.waits else lists)


def config(**parallel: Any) -> Any:
    """A configuration as vLLM's."""
    own = {"model_type": "qwen3_moe", "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "num_hidden_layers": 4,
           "mlp_only_layers": [1]}  # fmt: skip
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**parallel),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=LONGEST),
        compilation_config=SimpleNamespace(cudagraph_capture_sizes=[]),
        model_config=SimpleNamespace(
            model="tiny", hf_config=own, dtype="torch.float32", seed=0, skip_tokenizer_init=True, tokenizer=None
        ),
    )


def worker(v2: bool = False, waits: bool = False, **parallel: Any) -> Any:
    """A worker whose model is loaded."""
    return SimpleNamespace(model_runner=Runner(v2, waits), vllm_config=config(**parallel), shutdown=lambda: None)


class Engine:
    """Drives a worker by chance until all requests are done."""

    def __init__(self, worker: Any, requests: list[Asked], seed: int, caching: bool = True, preempting: bool = True,
                 guessing: bool = False, aborting: bool = False) -> None:  # fmt: skip
        self.worker, self.runner, self.rng = worker, worker.model_runner, np.random.default_rng(seed)
        self.waiting, self.running = list(requests), list(requests[:0])
        self.ended: list[str] = []
        self.caching, self.preempting, self.guessing = caching, preempting, guessing
        self.aborting = aborting
        self.truth = {one.name: one for one in requests}

    def run(self) -> None:
        """All requests, and the step that says that the last have ended."""
        while self.waiting or self.running:
            self.step()
        self._forward([], [], [])

    def step(self) -> None:
        """Some requests begin, some are put back, some of the others are forwarded."""
        new: list[Asked] = []
        again: list[Asked] = []
        while self.waiting and len(self.running) < 4 and self.rng.random() < 0.6:
            one = self.waiting.pop(0)
            self._admit(one)
            (again if one.begun else new).append(one)
            one.begun = True
        chosen = [one for one in self.running if one in new or one in again or self.rng.random() < 0.8]
        chosen = [chosen[n] for n in self.rng.permutation(len(chosen))]
        self._forward(new, again, chosen)
        if self.preempting and self.running and self.rng.random() < 0.15:
            one = self.running.pop(int(self.rng.integers(len(self.running))))
            self.waiting.insert(0, one)
        if self.aborting and self.running and self.rng.random() < 0.2:
            self.ended.append(self.running.pop(int(self.rng.integers(len(self.running)))).name)

    def _admit(self, one: Asked) -> None:
        blocks = (len(one.tokens) - 1) // BLOCK
        cached = int(self.rng.integers(0, blocks + 1)) * BLOCK if self.caching and self.rng.random() < 0.5 else 0
        one.computed = cached
        one.cached = one.cached if one.begun else cached
        self.running.append(one)

    def _forward(self, new: list[Asked], again: list[Asked], chosen: list[Asked]) -> None:
        ended, self.ended = self.ended, []
        rows, guesses = [], {}
        self.runner.said = {}
        for one in chosen:
            ready = one.tokens[one.computed :]
            fed = ready[: int(self.rng.integers(1, 9))]
            drafts = self._guessed(one) if len(fed) == len(ready) else []
            rows.append((one.name, one.computed, [*fed, *drafts]))
            if drafts:
                guesses[one.name] = drafts
        output = SimpleNamespace(
            scheduled_new_reqs=[self._new(one) for one in new] + ([self._new(one) for one in again] if self.runner.v2 else []),
            finished_req_ids=set(ended), scheduled_spec_decode_tokens=guesses, rows=rows,
            num_scheduled_tokens={name: len(tokens) for name, _, tokens in rows},
            total_num_scheduled_tokens=sum(len(tokens) for _, _, tokens in rows),
            known={one.name: list(one.tokens) for one in chosen},
        )  # fmt: skip
        for one, (_, start, tokens) in zip(chosen, rows):
            self._advance(one, start, tokens, guesses.get(one.name, []))
        self.runner.execute_model(output)
        if rows:
            self.runner.sample_tokens(None)

    def _guessed(self, one: Asked) -> list[int]:
        if not self.guessing or self.rng.random() < 0.3:
            return []
        past, found = tuple(one.tokens), []
        for _ in range(int(self.rng.integers(1, 4))):
            right = following(past)
            found.append(right if self.rng.random() < 0.6 else (right + 1) % VOCABULARY)
            past = (*past, found[-1])
        return found

    def _advance(self, one: Asked, start: int, tokens: list[int], drafts: list[int]) -> None:
        fed = len(tokens) - len(drafts)
        one.computed = start + fed
        one.seen.update(range(start, one.computed))
        one.tail = one.computed >= len(one.tokens)
        if not one.tail:
            if self.runner.waits or self.runner.v2:
                self.runner.said[one.name] = [int(self.rng.integers(VOCABULARY))]  # sampled, and thrown away
            return
        said: list[int] = []
        for guess in [*drafts, None]:
            said.append(following(tuple(one.tokens) + tuple(said)))
            if guess != said[-1]:
                break
        self.runner.said[one.name] = said
        one.tokens += said
        one.seen.update(range(one.computed, one.computed + len(said) - 1))
        one.computed += len(said) - 1
        if one.done:
            self.running.remove(one)
            self.ended.append(one.name)

    @staticmethod
    def _new(one: Asked) -> Any:
        sampling = SimpleNamespace(
            extra_args={"moescope_label": one.label} if one.label else None, stop_token_ids=one.stops, eos_token_id=None,
            ignore_eos=True,
        )  # fmt: skip
        return SimpleNamespace(
            req_id=one.name, prompt_token_ids=list(one.prompt), prompt_len=len(one.prompt), sampling_params=sampling
        )


def requests(n: int, seed: int) -> list[Asked]:
    """Prompts of 1 to 24 tokens, answers of 1 to 12."""
    rng = np.random.default_rng(seed)
    return [
        Asked(f"r{i}", rng.integers(0, VOCABULARY, rng.integers(1, 25)).tolist(), int(rng.integers(1, 13))) for i in range(n)
    ]


def recorded(tmp_path: Path, made: Any, asked: list[Asked], seed: int = 0, **how: bool) -> Any:
    """A watch that has seen all of it and is closed."""
    from moescope.engines.vllm import attach

    watch = attach.attached(made, str(tmp_path / "a.duckdb"), "engine")
    assert watch is not None
    Engine(made, asked, seed, **how).run()
    made.shutdown()
    return watch
