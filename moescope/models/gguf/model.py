"""A GGUF as a module: ids in, logits out, a call of each routed layer's block on the way: a Tracer takes it like others."""

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError, ModelError
from ...routers.engine_block import EngineBlock, Executed
from ...routers.rule import Rule
from ...words import percent
from .engine import Engine, Piece, fits
from .header import Header
from .library import Array

_PLAIN = {"F32", "F16", "BF16", "F64"}


class Config(SimpleNamespace):
    """What the file's header says, by the names that configurations have."""

    def to_dict(self) -> dict[str, Any]:
        """The header's own facts."""
        return dict(self.facts)


class Cache:
    """What llama.cpp remembers of the rows of a batch: how many tokens of each."""

    def __init__(self, generation: int, lengths: list[int]) -> None:
        self.generation, self.lengths, self.places = generation, lengths, 0

    def get_seq_length(self) -> int:
        """Places that were fed, padding included."""
        return self.places


class GGUFModel(nn.Module):
    """`blk.<layer>`: its routed layers. Of the weights only the routers' matrices are at hand, the others are llama.cpp's."""

    def __init__(self, engine: Engine, header: Header, rules: dict[int, Rule]) -> None:
        super().__init__()
        self.config = _config(engine, header)
        self.name_or_path = str(header.path)
        self._engine = engine
        self._header = _Held(header, rules)
        self.blk = nn.ModuleDict({str(layer): _block(header, layer, rule) for layer, rule in rules.items()})
        self.all_logits = False  # whether those of every place are wanted, not of the last alone
        engine.edited, engine.watched = self._edited, self._watched

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, past_key_values: Cache | None = None,
        use_cache: bool = False, room: int = 0,
    ) -> SimpleNamespace:  # fmt: skip
        """Evaluate (B, S) ids; with `past_key_values` behind what was fed before. `room`: tokens of each row that follow."""
        pieces, real = self._pieces(input_ids, attention_mask, past_key_values)
        if not any(len(piece.tokens) for piece in pieces):
            raise InputError("every token is padding: there is nothing to evaluate")
        kept = use_cache or past_key_values is not None
        layers, last, every = self._run(pieces, past_key_values is None, kept, room)
        self._tell(layers, real)
        cache = self._remembered(past_key_values, pieces, input_ids.shape[1]) if kept else None
        logits = last[:, None] if every is None else _spread(every, real)
        return SimpleNamespace(logits=torch.from_numpy(logits), past_key_values=cache)

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, max_new_tokens: int = 20, do_sample: bool = False
    ) -> Tensor:
        """(B, S + new) ids, each the most probable one; rows that have ended are filled up. The last one is never evaluated."""
        if do_sample:
            raise InputError("a GGUF is traced with the most probable token, do_sample=False")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids, cache, ended = input_ids, None, torch.zeros(len(input_ids), dtype=torch.bool)
        new = input_ids
        for step in range(max_new_tokens):
            out = self(new, attention_mask=mask, past_key_values=cache, use_cache=True, room=max_new_tokens)
            cache = out.past_key_values
            new = out.logits[:, -1].argmax(-1).masked_fill(ended, self.config.pad_token_id or 0)[:, None]
            ended |= torch.isin(new[:, 0], torch.tensor(self.config.eos_token_id, dtype=new.dtype))
            ids, mask = torch.cat([ids, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
            if bool(ended.all()) or step + 1 == max_new_tokens:
                break
        return ids

    def asked(self, predictions: bool, activations: Sequence[str]) -> None:
        """What a trace wants beside the routers' decisions. InputError for what stays in llama.cpp."""
        if activations:
            raise InputError(
                f"{activations[0]} is summed up of what experts compute, and that of a GGUF stays in llama.cpp: leave "
                "--measure out"
            )
        self.all_logits = predictions

    def get_input_embeddings(self) -> Any:
        """How many ids there are."""
        return SimpleNamespace(num_embeddings=self._engine.size)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The file's own tensors, by its names; quantized ones as bytes."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return {name: torch.from_numpy(np.asarray(data)) for name, data in self._header.header.tensors.items()}

    def described(self) -> dict[str, Any]:
        """Columns of `models` that cannot be told from modules."""
        header = self._header.header
        packed = {kind: n for kind, n in header.kinds.items() if kind not in _PLAIN}
        said = ", ".join(f"{kind} {percent(n / header.parameters)} of parameters" for kind, n in sorted(packed.items()))
        widest = max((n, kind) for kind, n in header.kinds.items())[1]
        code = f"llama.cpp by llama-cpp-python {self._engine.version}"
        return {
            "parameters": header.parameters,
            "dtype": widest,
            "quantization": f"GGUF: {said}" if said else None,
            "code": code,
        }

    def _pieces(self, ids: Tensor, mask: Tensor | None, past: Cache | None) -> tuple[list[Piece], Array]:
        """What is real of each row, and where it is (B, S)."""
        if past is not None and past.generation != self._engine.generation:
            raise ModelError("llama.cpp has forgotten what this cache stands for: another text was evaluated meanwhile")
        real = np.ones(tuple(ids.shape), bool) if mask is None else mask[:, -ids.shape[1] :].numpy().astype(bool)
        before = [0] * len(ids) if past is None else past.lengths
        rows = [ids[row][torch.from_numpy(real[row])].tolist() for row in range(len(ids))]
        return [Piece(number, start, tokens) for number, (start, tokens) in enumerate(zip(before, rows))], real

    def _run(self, pieces: list[Piece], fresh: bool, kept: bool, room: int) -> tuple[Any, Array, Array | None]:
        """{layer: arrays} of all tokens in order, logits behind each row, and of all tokens where they are wanted."""
        lengths, engine = [len(piece.tokens) for piece in pieces], self._engine
        most = int(self._header.header.fact("context_length", 0) or 0)
        if most and max(piece.start + n for piece, n in zip(pieces, lengths)) > most:
            raise InputError(f"a row has more tokens than the model's {most}: cut it (--max-length), or generate less")
        together = fits(pieces)
        if fresh and (kept or together):
            engine.forget(sum(lengths) + room * len(pieces), len(pieces))
        full = [piece for piece in pieces if piece.tokens]
        groups = [full] if together else [[piece] for piece in full]
        found = []
        for group in groups:
            if fresh and not kept and not together:
                engine.forget(len(group[0].tokens), 1)
                group = [Piece(0, 0, group[0].tokens)]
            found.append(engine.run(group, self.all_logits))
        layers = {
            layer: {name: np.concatenate([ran.layers[layer][name] for ran in found]) for name in first}
            for layer, first in found[0].layers.items()
        }
        if self.all_logits:
            every = np.concatenate([ran.all for ran in found if ran.all is not None])
            return layers, every, every
        last = np.zeros((len(pieces), engine.size), np.float32)
        last[[n > 0 for n in lengths]] = np.concatenate([ran.last for ran in found if ran.last is not None])
        return layers, last, None

    def _remembered(self, past: Cache | None, pieces: list[Piece], places: int) -> Cache:
        cache = past or Cache(self._engine.generation, [0] * len(pieces))
        cache.lengths = [piece.start + len(piece.tokens) for piece in pieces]
        cache.places += places
        return cache

    def _tell(self, layers: dict[int, dict[str, Array]], real: Array) -> None:
        """Call every block with what ran in it: a row for each place, those of padding empty of meaning."""
        for name, block in self.blk.items():
            own = layers.get(int(name))
            if own is None:
                raise ModelError(f"llama.cpp evaluated no router in layer {name}, as it did before: nothing is recorded of it")
            spread = {what: torch.from_numpy(_spread(rows, real)) for what, rows in own.items()}
            experts = spread["topk"].long().flatten(0, 1)
            if not real.all():  # distinct, so that nobody takes padding for a fault
                experts[torch.from_numpy(~real.reshape(-1))] = torch.arange(experts.shape[-1])
            hidden, parts, output = (
                spread[what].flatten(0, 1) if what in spread else None for what in ("hidden", "parts", "output")
            )
            ran = Executed(experts, spread["weights"].flatten(0, 1), spread["logits"].flatten(0, 1), hidden, parts)
            block(ran, output)

    def _edited(self, layer: int, logits: Array, experts: Array) -> tuple[Array, Array] | None:
        told = self.blk[str(layer)].told if str(layer) in self.blk else None
        if told is None or not told.edits:
            return None
        weights = self._header.rules[layer].weights(logits, experts.astype(np.int64)).astype(np.float32)
        found = told.edited(torch.from_numpy(experts.astype(np.int64)), torch.from_numpy(weights))
        return found[0].numpy(), found[1].numpy()

    def _watched(self, layer: int) -> bool:
        return str(layer) in self.blk and self.blk[str(layer)].told.watched > 0


class _Held:
    """What is known of the file; nothing that a forward changes."""

    __slots__ = ("header", "rules")

    def __init__(self, header: Header, rules: dict[int, Rule]) -> None:
        self.header, self.rules = header, rules


def _spread(rows: Array, real: Array) -> Array:
    """(B, S, ...) of rows for the real places, in order."""
    found = np.zeros((*real.shape, *rows.shape[1:]), rows.dtype)
    found[real] = rows
    return found


def _config(engine: Engine, header: Header) -> Config:
    api, vocab = engine.api, engine.vocab
    ends = [i for i in range(engine.size) if api.llama_vocab_is_eog(vocab, i)]
    pad, first = int(api.llama_vocab_pad(vocab)), int(api.llama_vocab_bos(vocab))
    return Config(
        model_type=header.architecture, vocab_size=engine.size,
        max_position_embeddings=int(header.fact("context_length", 0) or 0),
        num_hidden_layers=int(header.fact("block_count", 0) or 0), is_encoder_decoder=False, eos_token_id=ends,
        pad_token_id=pad if pad >= 0 else (ends[0] if ends else None), bos_token_id=first if first >= 0 else None,
        facts=header.facts,
    )  # fmt: skip


def _block(header: Header, layer: int, rule: Rule) -> EngineBlock:
    shared = header.fact("expert_shared_count")
    beside = any(f"blk.{layer}.ffn_{part}_shexp.weight" in header.tensors for part in ("gate", "up"))
    data = header.tensors.get(f"blk.{layer}.ffn_gate_inp.weight")
    weight = (
        torch.from_numpy(np.array(data, np.float32)) if data is not None and data.dtype in (np.float32, np.float16) else None
    )
    return EngineBlock(
        int(header.fact("expert_count")), int(header.fact("expert_used_count")), rule.score, rule.said(),
        (shared if isinstance(shared, int) and shared > 0 else 1) if beside else 0, weight,
    )  # fmt: skip
