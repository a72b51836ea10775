"""A model that llama.cpp holds: sequences in, what each router decided and the logits of each last token out."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ...hooks import Own
from .library import Array, library
from .listening import Edited, Heard, Listener

_AT_ONCE = 512  # tokens of one evaluation
_KEPT = ("logits", "topk", "weights", "hidden", "parts", "output")


@dataclass(frozen=True)
class Piece:
    """Tokens of one sequence, from place `start` of it on."""

    sequence: int
    start: int
    tokens: Sequence[int]


@dataclass
class Ran:
    """Of one call: {layer: {name: array of all its tokens in order}}; `last` (pieces, vocabulary) logits behind each piece, or
    `all` (tokens, vocabulary)."""

    layers: dict[int, dict[str, Array]] = field(default_factory=dict)
    last: Array | None = None
    all: Array | None = None


class Engine(Own):
    """`precise`: keys and values are kept in float32, and attention is not fused. ModelError where llama.cpp cannot load it."""

    def __init__(self, path: Path, gpu: bool, precise: bool, threads: Callable[[], int]) -> None:
        self._library, self._precise, self._threads = library(), precise, threads
        api = self._api = self._library.api
        self._context: Any = None
        self._held = (0, 0)  # tokens and sequences that the context has room for
        api.llama_backend_init()
        asked = api.llama_model_default_params()
        asked.n_gpu_layers = 999 if gpu else 0
        self._model = api.llama_model_load_from_file(str(path).encode(), asked)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load {path}{self._library.why()}: it may be of a newer form, or damaged")
        self.edited: Edited = lambda layer, logits, experts: None
        self.watched: Callable[[int], bool] = lambda layer: False
        self._listener = Listener(self._library, lambda *said: self.edited(*said), lambda layer: self.watched(layer))
        self._callback = api.ggml_backend_sched_eval_callback(self._listener)
        self.vocab = api.llama_model_get_vocab(self._model)
        self.size = int(api.llama_vocab_n_tokens(self.vocab))
        self.generation = 0  # raised whenever what it remembers is forgotten

    @property
    def api(self) -> Any:
        """llama-cpp-python."""
        return self._api

    @property
    def version(self) -> str:
        """Of llama-cpp-python."""
        return self._library.version

    @property
    def recurrent(self) -> bool:
        """Whether layers keep states beside attention."""
        return bool(self._api.llama_model_is_recurrent(self._model) or self._api.llama_model_is_hybrid(self._model))

    def forget(self, tokens: int, sequences: int) -> None:
        """Begin anew, with room for so many tokens in all, of so many sequences."""
        self.generation += 1
        if self._context is None or tokens > self._held[0] or sequences > self._held[1]:
            self._make(max(tokens, self._held[0]), max(sequences, self._held[1]))
            return
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        self._api.llama_set_n_threads(self._context, *[max(1, self._threads())] * 2)  # which may be set behind loading

    def _make(self, tokens: int, sequences: int) -> None:
        api = self._api
        self._free()
        asked = api.llama_context_default_params()
        asked.n_ctx = -(-max(tokens, 32) // 256) * 256
        asked.n_batch = asked.n_ubatch = min(asked.n_ctx, _AT_ONCE)
        asked.n_seq_max, asked.kv_unified = sequences, True  # unified: rows stay in the order in which they are given
        asked.n_threads = asked.n_threads_batch = max(1, self._threads())
        asked.cb_eval, asked.no_perf = self._callback, True
        if self._precise:
            asked.type_k = asked.type_v = 0  # GGML_TYPE_F32
            asked.flash_attn_type = 0
        self._context = api.llama_init_from_model(self._model, asked)
        if not self._context:
            raise ModelError(
                f"llama.cpp has no room for {tokens:,} tokens{self._library.why()}: ask for a smaller --max-length"
            )
        self._held = (tokens, sequences)

    def run(self, pieces: Sequence[Piece], every: bool = False) -> Ran:
        """Evaluate what the pieces hold; `every`: logits of all tokens. Their places have to follow those before."""
        ran, parts, heads = Ran(), [], []
        for some in _batches(pieces):
            logits = self._evaluate(some)
            parts.append({layer: one.arrays for layer, one in self._listener.heard.items()})
            ends = np.cumsum([len(piece.tokens) for piece in some]) - 1
            heads.append(logits if every else logits[ends])
        for layer in sorted(parts[0]):
            names = [name for name in _KEPT if name in parts[0][layer]]
            ran.layers[layer] = {name: np.concatenate([_rows(part[layer], name) for part in parts]) for name in names}
        if every:
            ran.all = np.concatenate(heads)
        elif len(heads) == 1:
            ran.last = heads[0]
        else:  # of one long piece the last part counts
            ran.last = heads[-1][-1:]
        return ran

    @property
    def heard(self) -> dict[int, Heard]:
        """Of the last evaluation."""
        return self._listener.heard

    def _evaluate(self, pieces: Sequence[Piece]) -> Array:
        """(tokens, vocabulary) logits."""
        api, count = self._api, sum(len(piece.tokens) for piece in pieces)
        batch = api.llama_batch_init(count, 0, 1)
        try:
            at = 0
            for piece in pieces:
                for number, token in enumerate(piece.tokens):
                    batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, piece.start + number, 1
                    batch.seq_id[at][0], batch.logits[at] = piece.sequence, 1  # else the last layer leaves the token out
                    at += 1
            batch.n_tokens = count
            self._listener.begin()
            answer = api.llama_decode(self._context, batch)
            if (failed := self._listener.failed) is not None:
                self._listener.failed = None
                raise failed
            if answer:
                raise ModelError(f"llama.cpp could not evaluate {count} tokens (answer {answer}){self._library.why()}")
            where = api.llama_get_logits(self._context)
            return np.ctypeslib.as_array(where, (count, self.size)).copy()
        finally:
            api.llama_batch_free(batch)

    def _free(self) -> None:
        if self._context is not None:
            self._api.llama_free(self._context)
            self._context = None

    def close(self) -> None:
        """Give the memory back."""
        self._free()
        if self._model:
            self._api.llama_model_free(self._model)
            self._model = None

    def __del__(self) -> None:
        if getattr(self, "_model", None) and ctypes is not None:
            self.close()


def fits(pieces: Sequence[Piece]) -> bool:
    """Whether all of them go into one evaluation."""
    return sum(len(piece.tokens) for piece in pieces) <= _AT_ONCE


def _batches(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Together, where that is one evaluation; else (of one sequence) cut."""
    if fits(pieces):
        return [list(pieces)]
    (piece,) = pieces
    cuts = range(0, len(piece.tokens), _AT_ONCE)
    return [[Piece(piece.sequence, piece.start + cut, piece.tokens[cut : cut + _AT_ONCE])] for cut in cuts]


def _rows(arrays: dict[str, Array], name: str) -> Array:
    """A row for each token."""
    rows = len(arrays["topk"])
    return arrays[name].reshape(rows, arrays["topk"].shape[1], -1) if name == "parts" else arrays[name].reshape(rows, -1)
