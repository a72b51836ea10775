"""What engines write, by an encoder of our own: random routing that is known, in every form that is imported."""

import base64
import io
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass
class Sequence:
    """One request: ids of prompt and answer, and (rows, routers, k) experts of all tokens but the last; weights that fall."""

    prompt: Array
    answer: Array
    experts: Array
    weights: Array

    @property
    def tokens(self) -> Array:
        return np.concatenate([self.prompt, self.answer])


@dataclass
class Served:
    """A model and what it routed."""

    experts: int
    top_k: int
    layers: int
    dense: tuple[int, ...] = ()
    sequences: list[Sequence] = field(default_factory=list)
    family: str = "qwen3_moe"

    @property
    def routed(self) -> list[int]:
        return [i for i in range(self.layers) if i not in self.dense]

    def config(self) -> dict[str, Any]:
        return {
            "model_type": self.family, "num_experts": self.experts, "num_experts_per_tok": self.top_k, "norm_topk_prob": True,
            "num_hidden_layers": self.layers, "mlp_only_layers": list(self.dense), "decoder_sparse_step": 1,
        }  # fmt: skip

    def planes(self, one: Sequence, fill: int = 0) -> Array:
        """(rows, all layers, k), dense layers filled."""
        found = np.full((len(one.experts), self.layers, self.top_k), fill, np.int32)
        found[:, self.routed] = one.experts
        return found

    def saved(self, folder: Path) -> Path:
        """Its config.json."""
        path = folder / "config.json"
        path.write_text(json.dumps(self.config()))
        return path


def served(
    experts: int = 16,
    top_k: int = 4,
    layers: int = 4,
    dense: tuple[int, ...] = (),
    n: int = 3,
    seed: int = 0,
    longest: int = 24,
) -> Served:
    """`n` sequences of random lengths."""
    rng = np.random.default_rng(seed)
    made = Served(experts, top_k, layers, dense)
    for _ in range(n):
        prompt, answer = rng.integers(0, 300, rng.integers(4, longest)), rng.integers(0, 300, rng.integers(3, longest))
        rows, routers = len(prompt) + len(answer) - 1, len(made.routed)
        ids = rng.random((rows, routers, experts)).argsort(-1)[..., :top_k]
        weights = -np.sort(-rng.dirichlet(np.ones(top_k), (rows, routers)), axis=-1)
        made.sequences.append(Sequence(prompt, answer, ids.astype(np.int32), weights.astype(np.float32)))
    return made


def npy(ids: Array, kind: Any = None) -> str:
    """base64 of numpy.save, in the type that vLLM takes."""
    file = io.BytesIO()
    np.save(file, ids.astype(kind or (np.uint8 if ids.max(initial=0) < 256 else np.uint16)))
    return base64.b64encode(file.getvalue()).decode()


def raw(ids: Array, kind: Any = np.int32) -> str:
    """base64 of bare numbers."""
    return base64.b64encode(np.ascontiguousarray(ids.astype(kind)).tobytes()).decode()


def vllm(made: Served, chat: bool = False, start: int = 0) -> list[dict[str, Any]]:
    """Responses of 0.22 and later."""
    kind = np.uint8 if made.experts <= 256 else np.uint16
    found = []
    for i, one in enumerate(made.sequences):
        choice = {
            "index": 0, "token_ids": one.answer.tolist(), "routed_experts": npy(made.planes(one)[start:], kind),
            "finish_reason": "length",
        }  # fmt: skip
        response: dict[str, Any] = {"id": f"cmpl-{i}", "object": "text_completion", "choices": [choice]}
        (response if chat else choice)["prompt_token_ids"] = one.prompt.tolist()
        response["usage"] = {"prompt_tokens": len(one.prompt), "completion_tokens": len(one.answer)}
        found.append(response)
    return found


def vllm_021(made: Served) -> list[dict[str, Any]]:
    """Nested lists, planes in order of creation; where there are dense layers the last planes stay empty."""
    found = []
    for i, one in enumerate(made.sequences):
        planes = np.zeros((len(one.experts), made.layers, made.top_k), np.int16)
        planes[:, : len(made.routed)] = one.experts
        cut = len(one.prompt)
        choice = {"index": 0, "token_ids": one.answer.tolist(), "routed_experts": planes[cut:].tolist()}
        response = {"id": f"cmpl-{i}", "choices": [choice], "prompt_routed_experts": planes[:cut].tolist()}
        found.append(response | {"prompt_token_ids": one.prompt.tolist()})
    return found


def sglang(made: Served) -> list[dict[str, Any]]:
    """Of /generate."""
    return [
        {
            "text": "", "output_ids": one.answer.tolist(),
            "meta_info": {
                "id": f"rid-{i}", "prompt_tokens": len(one.prompt), "completion_tokens": len(one.answer),
                "routed_experts": raw(made.planes(one)),
            },
        }
        for i, one in enumerate(made.sequences)
    ]  # fmt: skip


def sglang_chat(made: Served) -> list[dict[str, Any]]:
    """Of the OpenAI routes."""
    return [
        {
            "id": f"chat-{i}", "choices": [{"index": 0, "sgl_ext": {"routed_experts": raw(made.planes(one))}}],
            "usage": {"prompt_tokens": len(one.prompt), "completion_tokens": len(one.answer)},
        }
        for i, one in enumerate(made.sequences)
    ]  # fmt: skip


def dynamo(made: Served) -> list[dict[str, Any]]:
    """With the shape beside the bytes."""
    found = []
    for one in made.sequences:
        ids = made.planes(one)
        payload = {"data": raw(ids, np.uint16), "shape": list(ids.shape), "start": 0, "dtype": "uint16"}
        engine = {"prompt_token_ids": one.prompt.tolist(), "completion_token_ids": one.answer.tolist()}
        found.append({"engine_data": engine | {"routed_experts": payload}})
    return found


def trtllm(made: Served) -> list[dict[str, Any]]:
    """Planes of routers alone."""
    return [
        {
            "request_id": i, "prompt_token_ids": one.prompt.tolist(),
            "outputs": [{"index": 0, "token_ids": one.answer.tolist(), "routed_experts": one.experts.tolist()}],
        }
        for i, one in enumerate(made.sequences)
    ]  # fmt: skip


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def archive(path: Path, made: Served) -> Path:
    """Arrays as a user of the offline API saves them."""
    arrays: dict[str, Any] = {}
    for i, one in enumerate(made.sequences):
        arrays |= {f"routed_experts_{i}": made.planes(one), f"token_ids_{i}": one.tokens, f"prompt_len_{i}": len(one.prompt)}
    np.savez(path, **arrays)
    return path


def policylang(path: Path, made: Served) -> Path:
    """A header, and a line for each prompt, token and layer; scores of a whole softmax (half of it chosen)."""
    header = {"model_name": "m", "num_layers": len(made.routed), "num_experts": made.experts, "top_k": made.top_k}
    records: list[dict[str, Any]] = [header | {"num_entries": 0}]
    for p, one in enumerate(made.sequences):
        for t, row in enumerate(one.experts):
            for router, layer in enumerate(made.routed):
                said: dict[str, Any] = {"p": p, "t": t, "l": layer, "e": row[router].tolist()}
                said |= {"s": (one.weights[t, router] / 2).tolist(), "ph": "prefill" if t < len(one.prompt) else "decode"}
                records.append(said | ({"ti": int(one.prompt[t])} if t < len(one.prompt) else {}))
    return lines(path, records)


def megatron(folder: Path, made: Served, first: int = 0, ascending: bool = False, rank: int = 0, of: Any = None) -> Path:
    """A trace: each sequence is a prefill and then a step a token. `of`: layers of this rank, numbered from 0 within it."""
    layers = made.routed if of is None else of
    own = {layer: (layer if of is None else place) + first for place, layer in enumerate(layers)}
    records, step = [], 0
    for one in made.sequences:
        cuts = [0, *range(len(one.prompt), len(one.experts) + 1)]
        for begin, end in pairwise(cuts):
            for layer in layers:
                ids = one.experts[begin:end, made.routed.index(layer)]
                ids = np.sort(ids, -1) if ascending else ids
                said = {"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": own[layer], "rank": rank}
                records.append(said | {"num_tokens": len(ids), "topk": made.top_k, "top_indices": ids.tolist()})
            step += 1
    folder.mkdir(exist_ok=True)
    return lines(folder / f"router_trace_rank{rank}.jsonl", records)


def recorder(path: Path, made: Served, slots: Array | None = None) -> Path:
    """SGLang's per_token file: one extend of all prompts, then decodes of those that go on; `slots` (layers, S): the logical
    expert of every physical one, of which the first copy is written."""
    import torch

    def forward(number: int, parts: list[tuple[Sequence, int, int]], extend: bool) -> dict[str, Any]:
        planes = np.concatenate([made.planes(one, -1)[a:b] for one, a, b in parts]).transpose(1, 0, 2)
        if slots is not None:
            first = np.stack([[int(np.flatnonzero(row == e)[0]) for e in range(made.experts)] for row in slots])
            planes = np.where(planes >= 0, np.stack([f[np.maximum(p, 0)] for f, p in zip(first, planes)]), -1)
        ids = np.full((made.layers, planes.shape[1], 8), -1, np.int32)
        ids[..., : made.top_k] = planes
        return {
            "forward_pass_id": number, "rank": 0, "gatherer_key": "primary", "misc_objects": [],
            "input_ids": [int(t) for one, a, b in parts for t in one.tokens[a:b]],
            "positions": [p for _, a, b in parts for p in range(a, b)],
            "extend_seq_lens": [b - a for _, a, b in parts] if extend else None, "forward_mode": 1 if extend else 2,
            "topk_ids_of_layer": torch.from_numpy(ids),
        }  # fmt: skip

    records = [forward(0, [(one, 0, len(one.prompt)) for one in made.sequences], True)]
    for step in range(max(len(one.experts) - len(one.prompt) for one in made.sequences)):
        live = [
            (o, len(o.prompt) + step, len(o.prompt) + step + 1) for o in made.sequences if len(o.prompt) + step < len(o.experts)
        ]
        records.append(forward(step + 1, live, False))
    table = np.tile(np.arange(made.experts), (made.layers, 1)) if slots is None else slots
    torch.save({"records": records, "last_physical_to_logical_map": torch.from_numpy(table.copy())}, path)
    return path
