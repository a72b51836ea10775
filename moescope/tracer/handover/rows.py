"""Rows of jobs: forwards, decisions, labels and conditions, as columns for the writer."""

from typing import Any

import numpy as np

from ...decisions import MAX_WIDTH, columns_fixed_k, fits_fixed_k, rows_any_k
from ...store import RunWriter
from ..options import Options
from ..sequences import conditions
from ..sequences.token_rows import Identity, distinct
from ..training_steps import Ended
from .health import Health
from .record_batches import Job, RecordBatch, mean_probabilities, pools


class Rows:
    """Puts what jobs hold into a writer. `identity` names the tokens; `warnings` counts decisions that something is said of."""

    def __init__(self, writer: RunWriter, identity: Identity, options: Options) -> None:
        self.writer, self.identity, self.options = writer, identity, options
        self.watch = Health(writer)
        carried = writer.part.progress.get("resume", {})  # of a run that goes on
        self.warnings: dict[str, int] = dict(carried.get("warned", {}))
        self.unnumbered: list[dict[str, Any]] = []  # forwards of a training step whose number may change

    def notes(self) -> list[str]:
        """What is to be said of the rows, once they are written."""
        return [f"{text} ({count} decisions)" for text, count in self.warnings.items()] + self.identity.notes()

    def add(self, job: Job) -> None:
        """Every forward of a job as rows of its tables; rows of `forwards` wait for `file` while their step may change."""
        first = self.writer.take("forward", len(job.forwards))
        keys: dict[int, np.ndarray] = {}
        rows = []
        for place, forward in enumerate(job.forwards):
            shared, sequences = {name: t.numpy() for name, t in forward.tensors.items()}, []
            for number, stream in enumerate(forward.streams):
                own = {name.partition(":")[2]: a for name, a in shared.items() if name.startswith(f"{number}:")}
                tokens, named = self.identity.rows(stream, own)
                sequences.append(named.live.sequences)
                keys[id(stream)] = tokens.reshape(-1)
                if "predicted" in own:
                    self.writer.add(
                        "token_labels", _predicted(np.where(named.fresh, tokens, -1), own["predicted"], own.get("kept"))
                    )
            count = distinct([keys[id(stream)] for stream in forward.streams])
            loss = {"loss": np.float32(shared["loss"])} if "loss" in shared else {}
            row = {"forward": first + place, "tokens": count, **(forward.row or {}), **loss}
            for said in conditions.rows(forward.conditions, shared, sequences):
                self.writer.add("conditions", {"forward": [first + place], **{name: [value] for name, value in said.items()}})
            rows.append(row | ({"phase": "decode"} if row.get("phase") == "prefill" and named.decodes else {}))
        for batch in job.batches:
            self._add(batch, keys, first, [forward.part for forward in job.forwards])
        for row, forward in zip(rows, job.forwards):
            self.unnumbered.append(row)
            if not forward.tentative:
                self.file()

    def end(self, ended: Ended) -> None:
        """A step, or an evaluation, is over: its health, and its number for the forwards that wait."""
        self.watch.end(ended)
        if ended.part == "train":
            self.file(ended.step)

    def file(self, step: int | None = None) -> None:
        """Add the rows of forwards that are held, under this step (else the one that was foreseen)."""
        for row in self.unnumbered:
            self.writer.add("forwards", row if step is None else {**row, "step": step})
        self.unnumbered = []

    def _add(self, batch: RecordBatch, keys: dict[int, np.ndarray], first: int, parts: list[str | None]) -> None:
        arrays = batch.arrays()
        sites = [record.site for record, *_ in batch.routed]
        routers = np.array([site.key for site in sites])
        iterations = np.array([record.iteration for record, *_ in batch.routed])
        forwards = np.array([first + number for *_, number in batch.routed], np.uint32)
        rows, thresholds = arrays.pop("rows", None), arrays.pop("threshold", None)
        if "executed" in arrays:
            arrays["dropped"] = ~arrays.pop("executed").astype(bool)
        named = [keys[id(stream)] for _, stream, _ in batch.routed]
        tokens = (
            np.stack(named) if rows is None else np.stack([np.where(some < 0, -1, own[some]) for own, some in zip(named, rows)])
        )
        self._count_nonfinite(arrays, sites, tokens)
        for (record, *_), those in zip(batch.routed, tokens):
            if record.altered:
                count = int((those >= 0).sum())
                self._warn(f"{record.site.path} executed something else than its router decided, which was not kept", count)
        if (part := parts[batch.routed[0][2]]) is not None:
            self.watch.add(part, arrays | _means(arrays, sites[0].score, tokens), sites, tokens)
        if not self.options.logits:
            arrays.pop("logits", None)
        if self.options.fraction < 1:
            tokens = np.where(_sampled_by_key(tokens, self.options.fraction), tokens, -1)
        if fits_fixed_k(arrays, sites[0].kind):
            k = arrays["experts"].shape[-1]
            columns = columns_fixed_k(arrays, tokens, routers, iterations, forwards)
            kept = columns if self.options.weights else {name: c for name, c in columns.items() if name[0] != "w"}
            self.writer.add(f"routes_{k}", kept)
        else:
            decisions, assignments = rows_any_k(arrays, tokens, routers, iterations, forwards)
            if not self.options.weights:
                del assignments["weight"]
            self.writer.add("decisions_long", decisions)
            self.writer.add("assignments_long", assignments)
        self._extras(batch, arrays, tokens, routers, iterations, forwards)
        for number, own in pools(batch, arrays.get("pool"), thresholds):
            self.writer.add("pools", {"forward": forwards[number], "router": routers[number], **own})

    def _differing(self, batch: RecordBatch, arrays: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        """(R, T) of which tokens the layer executed something else than the router decided; counted in the run's warnings."""
        other = tokens >= 0
        if arrays["decided_experts"].shape == arrays["experts"].shape:
            weights = np.isclose(arrays["decided_weights"], arrays["weights"], rtol=0, atol=0, equal_nan=True)
            other = other & ~((arrays["decided_experts"] == arrays["experts"]) & weights).all(-1)
        for (record, *_), count in zip(batch.routed, other.sum(1)):
            if count and not record.site.warning:  # else it is said of the router once and for all
                self._warn(f"{record.site.path} executed something else than its router decided", int(count))
        return other

    def _warn(self, sentence: str, count: int) -> None:
        self.warnings[sentence] = self.warnings.get(sentence, 0) + count

    def _extras(
        self, batch: RecordBatch, arrays: Any, tokens: np.ndarray, routers: Any, iterations: Any, forwards: Any
    ) -> None:
        if "decided_experts" in arrays:
            different = self._differing(batch, arrays, tokens).any(1)
            if different.any() and arrays["decided_experts"].shape[-1] <= MAX_WIDTH:
                pick = {"experts": arrays["decided_experts"][different], "weights": arrays["decided_weights"][different]}
                k = pick["experts"].shape[-1]
                wide = columns_fixed_k(pick, *(a[different] for a in (tokens, routers, iterations, forwards)))
                self.writer.add(f"decided_{k}", wide)
        if "logits" in arrays:
            r, t = np.nonzero((tokens >= 0) & _sampled_by_key(tokens, float(self.options.logits)))
            self.writer.add(
                "logits",
                {"forward": forwards[r], "router": routers[r], "iteration": iterations[r], "token": tokens[r, t],
                 "logits": list(arrays["logits"][r, t])},
            )  # fmt: skip

    def _count_nonfinite(self, arrays: dict[str, np.ndarray], sites: list[Any], tokens: np.ndarray) -> None:
        for name in ("entropy", "weights"):
            if name in arrays and not np.isfinite(arrays[name]).all():
                bad = ~np.isfinite(arrays[name]).reshape(len(sites), tokens.shape[1], -1).all(-1) & (tokens >= 0)
                for site, count in zip(sites, bad.sum(1)):
                    if count:
                        what = "router logits" if name == "entropy" else "routing weights"
                        self._warn(f"NaN or infinite {what} at {site.path}", int(count))


def _means(arrays: dict[str, np.ndarray], score: str | None, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Mean probability of every expert over the tokens that are recorded, where there are logits."""
    if "logits" not in arrays:
        return {}
    return {"mean_probability": mean_probabilities(arrays["logits"], score, tokens >= 0)}


def _predicted(keys: np.ndarray, ids: np.ndarray, kept: np.ndarray | None) -> dict[str, Any]:
    """Token labels: what comes next by the model's head, for the places that were `kept` for it, else for the last ones."""
    tokens = keys[:, keys.shape[1] - ids.shape[1] :] if kept is None or kept.size != ids.shape[1] else keys[:, kept]
    real = tokens >= 0
    labels = [str(i) for i in ids[real].tolist()]
    return {"token": tokens[real], "kind": ["predicted_id"] * len(labels), "label": labels}


def _sampled_by_key(tokens: np.ndarray, fraction: float) -> np.ndarray:
    """The same tokens in every layer, spread evenly: a hash of the key under the fraction."""
    mixed = tokens.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(40)).astype(np.float64) < fraction * 2**24
