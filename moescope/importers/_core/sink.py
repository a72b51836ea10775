"""Captured sequences into a store: checked, gathered to batches, written in memory that does not grow with the capture."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...store.write.writer import RunWriter
from .captured import Array, Captured, Counts, Notes
from .columns import Keys, decision_columns, forwards_of, input_columns, placed
from .doubles import Doubles
from .model import Model
from .rules import sound
from .run_head import WITHOUT, head_of, now
from .words import Labels, Tokenizer

_BATCH = 1 << 18  # decisions gathered before they become columns
_SHARD = 1 << 21  # decisions of a shard


class Sink:
    """The writing end of one import; the run is begun with the first sequence or count."""

    def __init__(
        self, store: str | Path, name: str, kind: str, files: Sequence[str], notes: Notes, command: Sequence[str] = ()
    ) -> None:
        self.store, self.name, self.kind, self.files, self.notes = store, name, kind, list(files), notes
        self.command = list(command)
        self.origin = f"imported from {kind}; nothing could be proved"  # the run's first warning
        self.facts: Mapping[str, Any] = {}  # columns of `runs` that are known besides
        self.tokenizer: Tokenizer | None = None
        self.labels: Labels | None = None
        self.writer: RunWriter | None = None
        self.model: Model | None = None
        self.ordered: bool | None = None
        self.sequences = self.tokens = self.decisions = self.counted = 0
        self._held: list[Captured] = []
        self._there: list[Array | None] = []
        self.doubles: Doubles | None = Doubles()  # None: nobody looks for requests that come twice
        self._words: set[int] = set()
        self._pieces: dict[str, int] = {}
        self._began = time.perf_counter()

    def add(self, one: Captured, model: Model) -> None:
        """Check a sequence and take it. Fault if it cannot be what the model executed; nothing of it is kept then."""
        if not one.rows:
            one.experts = np.zeros((0, len(model.routed), model.top_k), np.int32)
        there = sound(one, model, self.notes)
        if self.doubles is not None:
            self.doubles.check(one, self.notes)
        ordered = self._ordered(one, model)
        self._facts(one, ordered)  # first of all, so that a run which is cut off says it too
        self._begin(model, ordered)
        if self.counted:
            raise InputError("counts and decisions do not go into one run: import them one by one")
        self._held.append(one)
        self._there.append(there)
        if sum(held.rows for held in self._held) * len(model.routed) >= _BATCH:
            self._flush()

    def count(self, counts: Counts, model: Model) -> None:
        """Take counts: how often experts ran, without tokens. InputError where they are of other layers or experts."""
        self._begin(model, True)
        if self.sequences or self._held:
            raise InputError("counts and decisions do not go into one run: import them one by one")
        place = {layer: number for number, layer in enumerate(model.routed)}
        layers = counts.layer.tolist()
        if unknown := sorted(set(layers) - place.keys()):
            raise InputError(f"{counts.where} counts layer {unknown[0]}, which has no router in {model.name}")
        if len(counts.expert) and not 0 <= counts.expert.min() <= counts.expert.max() < model.experts:
            raise InputError(f"{counts.where} counts expert {counts.expert.max()}, and {model.name} has {model.experts}")
        assert self.writer is not None
        columns = {"router": np.array([place[layer] for layer in layers], np.uint32), "expert": counts.expert.astype(np.uint16)}
        weight = np.zeros(len(layers)) if counts.weight is None else counts.weight
        sums = {"assignments": counts.n.astype(np.uint64), "first": np.zeros(len(layers), np.uint64), "weight": weight}
        self.writer.add("load_rollup", columns | sums | {"dropped": np.zeros(len(layers), np.uint64)})
        for kind, label in counts.labels.items():
            self.writer.add("label_rollup", columns | sums | {"kind": [kind] * len(layers), "label": [label] * len(layers)})
        self.counted += int(counts.n.sum())

    def close(self) -> int:
        """Join the run; gives its number. InputError where nothing came."""
        if self.writer is None or self.model is None or not (self.counted or self.sequences or self._held):
            raise InputError(self._nothing())
        self._flush()
        self._say()
        seconds = time.perf_counter() - self._began
        final = {
            "status": "complete", "finished": now(), "seconds": seconds, "model_seconds": 0.0, "trace_seconds": 0.0,
            "warnings": self._warnings(), "capture": self._capture(),
        }  # fmt: skip
        writer, self.writer = self.writer, None
        return writer.close(final, {"files": len(self.files), "sequences": self.sequences})

    def discard(self) -> None:
        """Forget everything."""
        if self.writer is not None:
            self.writer.discard()
            self.writer = None

    def commit(self) -> None:
        """Make durable what came so far."""
        self._flush()
        if self.writer is not None:
            self.writer.commit({"sequences": self.sequences})

    def _ordered(self, one: Captured, model: Model) -> bool:
        """Whether ranks are known."""
        if one.by_weight is not None:
            return one.by_weight or model.top_k == 1
        return bool(model.by_weight) or model.top_k == 1

    def _begin(self, model: Model, ordered: bool) -> None:
        if self.writer is None:
            self.model, self.ordered = model, ordered
            self.writer = RunWriter.create(self.store, head_of(model, ordered, self._run(), self.kind))
        elif ordered != self.ordered:
            raise InputError(
                "some of these captures are in the order of their weights and some are not: import them one by one"
            )

    def _facts(self, one: Captured, ordered: bool) -> None:
        held = self._held[0] if self._held else None
        if held is not None and (held.named != one.named or (held.weights is None) != (one.weights is None)):
            self._flush()
        if one.weights is None:
            self.notes.lack("weights", WITHOUT["weights"])
        if not ordered:
            self.notes.lack("ranks", WITHOUT["ranks"])
        if one.pieces is None and (one.tokens is None or bool((np.asarray(one.tokens) < 0).any())):
            self.notes.lack("ids", WITHOUT["ids"])
        if one.named:
            self.notes.lack("forwards", WITHOUT["forwards"])
        self.notes.lack("summaries", WITHOUT["summaries"])
        if self.tokenizer is None and one.pieces is None:
            self.notes.lack("text", WITHOUT["text"])
        if self.labels is not None:
            one.labels = {**one.labels, **self.labels.of(one.request, one.document, one.row)}

    def _flush(self) -> None:
        if not self._held or self.writer is None:
            return
        held, there, writer = self._held, self._there, self.writer
        self._held, self._there = [], []
        keys = Keys(
            writer.take("sequence", len(held)), writer.take("token", sum(one.length for one in held)),
            writer.take("forward", sum(len(forwards_of(one)) for one in held)),
        )  # fmt: skip
        self._texts(held)
        for table, columns in input_columns(held, keys).items():
            writer.add(table, columns)
        if any(one.rows for one in held):
            for table, columns in decision_columns(held, placed(held, there, keys), bool(self.ordered)).items():
                writer.add(table, columns)
        self.sequences += len(held)
        self.tokens += sum(one.length for one in held)
        if writer.pending >= _SHARD:
            writer.commit({"sequences": self.sequences})

    def _texts(self, held: Sequence[Captured]) -> None:
        self._spelled([one for one in held if one.pieces is not None])
        if self.tokenizer is None:
            return
        assert self.writer is not None
        for one in held:
            if one.tokens is None:
                continue
            ids = np.asarray(one.tokens)
            if one.text is None and bool((ids >= 0).all()):
                one.text = self.tokenizer.text(ids.tolist())
            if new := sorted(set(ids[ids >= 0].tolist()) - self._words):
                self._words.update(new)
                self.writer.add("vocab", {"vocab_id": new, "text": self.tokenizer.words(new)})

    def _spelled(self, held: Sequence[Captured]) -> None:
        """Tokens that are told by their text: each text is a vocabulary id of its own."""
        for one in held:
            pieces = one.pieces or []
            new = [text for text in dict.fromkeys(pieces) if text not in self._pieces]
            self._pieces |= {text: len(self._pieces) + number for number, text in enumerate(new)}
            one.tokens = np.array([self._pieces[text] for text in pieces])
            if new and self.writer is not None:
                self.writer.add("vocab", {"vocab_id": [self._pieces[text] for text in new], "text": new})
                self.notes.say(
                    "tokens are told by their text: vocabulary ids are the order in which texts came, no tokenizer's"
                )

    def _run(self) -> dict[str, Any]:
        return {
            "name": self.name, "dataset": ", ".join(self.files)[:500], "warnings": self._warnings(),
            "capture": self._capture(), "command": self.command or sys.argv, **self.facts,
        }  # fmt: skip

    def _capture(self) -> dict[str, Any]:
        return {"imported": self.kind, "files": self.files[:100], "lacks": self.notes.lacks, "counts_only": bool(self.counted)}

    def _say(self) -> None:
        if self.counted:
            self.notes.lack("decisions", "the capture holds counts of experts alone: there are no tokens and no decisions")
        if self.labels is not None and self.labels.used < max(len(self.labels), self.sequences):
            self.notes.say(
                f"{self.labels.path.name} has labels of {len(self.labels)} requests, and {self.labels.used} of the "
                f"{self.sequences} imported sequences are among them"
            )

    def _warnings(self) -> list[str]:
        return [self.origin, *self.notes.sentences()]

    def _nothing(self) -> str:
        left = f" ({self.notes.left_out[0]})" if self.notes.left_out else ""
        more = f"; {next(iter(self.notes.sentences()))}" if self.notes.sentences() and not left else ""
        return f"{', '.join(self.files)[:200]} gave no sequence with routing{left}{more}; nothing was stored"
