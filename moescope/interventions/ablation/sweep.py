"""Ablate many sets of experts over the batches of a run; sums by document and group are committed batch by batch."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...contracts import Site
from ...errors import InputError
from ...models.loading import Loaded
from ...proof import observed
from ...routers.calls import signature
from ..data import Batch, Batches
from ..edits.base import Edit, intervene
from ..edits.choice import RouteAround
from ..edits.contributions import Mean, Norms, norms
from ..edits.executed import Zero
from .plan import Experts
from .prefix import Prefix
from .scores import NAMES, Outcome, compare, outcome

MODES = ("zero", "mean", "route-around")
Report = Callable[[dict[str, Any]], None]


@dataclass(eq=False)
class Sweep:
    """Everything that says what a sweep computes. `groups`: {kind: ((tokens,) group numbers, names)}.

    `at`: a loss is counted to the group of the token that is predicted (`target`) or of the one that is read (`input`).
    """

    loaded: Loaded
    sites: Sequence[Site]
    batches: Batches
    sets: Sequence[Experts]
    mode: str
    groups: Mapping[str, tuple[np.ndarray, list[str]]]
    at: str = "target"
    share: bool = True  # do not compute again what an edit cannot touch
    notes: list[str] = field(default_factory=list)
    _means: dict[str, Norms] = field(default_factory=dict)

    def key(self, *more: Any) -> str:
        """Changes with whatever changes the sums."""
        plan = [self.mode, self.at, self.sets, {k: names for k, (_, names) in self.groups.items()}, *more]
        return hashlib.sha256(json.dumps(plan, default=str, sort_keys=True).encode()).hexdigest()[:12]

    def edits(self, experts: Experts) -> list[Edit]:
        """The edits that ablate a set. InputError for a mode that is none."""
        if self.mode == "zero":
            return [Zero(router=path, experts=which) for path, which in experts]
        if self.mode == "route-around":
            return [RouteAround(router=path, experts=which) for path, which in experts]
        if self.mode == "mean":
            means = {path: n.mean for path, n in self._means.items()}
            return [Mean(router=path, experts=which, means=means) for path, which in experts]
        raise InputError(f"there is no mode {self.mode!r}: choose one of {', '.join(MODES)}")

    def run(self, folder: Path, report: Report | None = None) -> pd.DataFrame:
        """Sums by set, kind, group and document. What `folder` already holds is not computed again."""
        folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        for experts in self.sets:
            for edit in self.edits(experts):
                edit.check(self.loaded.model, self.sites)
        prefix = Prefix(self.loaded.model, self.sites) if self.share else None
        for number, batch in enumerate(self.batches):
            shard = folder / f"batch-{number:06d}.parquet"
            if not shard.exists():
                _write(shard, self._batch(batch, prefix))
            if report is not None:
                report({"batches": number + 1, "total": len(self.batches), "sets": len(self.sets)})
        frames = [pd.read_parquet(shard) for shard in sorted(folder.glob("batch-*.parquet"))]
        return pd.concat(frames).groupby(["set", "kind", "group", "document"], as_index=False).sum()

    def _prepare(self) -> None:
        if self.mode == "mean" and not self._means:
            routers = {path for experts in self.sets for path, _ in experts}
            needed = [s for s in self.sites if s.path in routers]
            self._means = norms(self.loaded.model, needed, (self._inputs(b) for b in self.batches))

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        takes = signature(self.loaded.model).parameters
        return {**batch.inputs, **({"use_cache": False} if "use_cache" in takes else {})}

    def _batch(self, batch: Batch, prefix: Prefix | None) -> pd.DataFrame:
        inputs = self._inputs(batch)
        model: Any = self.loaded.model
        with torch.no_grad(), observed(list(self.sites)) as calls:
            output = prefix.run(inputs) if prefix is not None else model(**inputs)
        base = outcome(output, batch, calls)
        fitting = self._fitting(prefix, inputs)
        frames = [self._sums(-1, batch, {"nll": -base.target, "delta_correct": base.correct})]
        for number, experts in enumerate(self.sets):
            changes = self._changes(experts, batch, inputs, base, prefix if fitting(experts) else None)
            frames.append(self._sums(number, batch, changes))
        return pd.concat(frames)

    def _fitting(self, prefix: Prefix | None, inputs: dict[str, Any]) -> Callable[[Experts], bool]:
        """Whether a set may share work: shown bit for bit, router by router, on the first batch."""
        if prefix is None:
            return lambda _: False
        if not hasattr(self, "_shared"):
            routers = {path for experts in self.sets for path, _ in experts}
            self._shared = {s.path for s in self.sites if s.path in routers and prefix.fits(inputs, [s])}
            if left := routers - self._shared:
                self.notes.append(f"{len(left)} routers share no work ({min(left)} …): resuming there is not bit-identical")
        return lambda experts: all(path in self._shared for path, _ in experts)

    def _changes(self, experts: Experts, batch: Batch, inputs: dict[str, Any], base: Outcome, prefix: Prefix | None) -> Any:
        paths = {path for path, _ in experts}
        edited = [n for n, s in enumerate(self.sites) if s.path in paths]
        model: Any = self.loaded.model
        after = list(self.sites[edited[-1] + 1 :])
        with torch.no_grad(), intervene(model, *self.edits(experts), sites=self.sites), observed(after) as calls:
            if prefix is None:
                output = model(**inputs)
            else:
                with prefix.resume([self.sites[n] for n in edited]):
                    output = model(**inputs)
        return compare(base, outcome(output, batch, calls), batch, {s.name for s in after})

    def _sums(self, number: int, batch: Batch, values: Mapping[str, torch.Tensor]) -> pd.DataFrame:
        scored, rows = (batch.scored if self.at == "target" else batch.read).reshape(-1), []
        there = batch.scored.reshape(-1) >= 0
        places = scored[there] - self.batches.first_token
        arrays = {name: v.double().cpu().numpy() for name, v in values.items()}
        documents = self.batches.document_of[0][places]
        for kind, (group_of, names) in self.groups.items():
            group = group_of[places]
            known = group >= 0
            code, at = np.unique(documents[known] * len(names) + group[known], return_inverse=True)
            sums = {n: np.bincount(at, a[known], minlength=len(code)) for n, a in arrays.items()}
            frame = pd.DataFrame({"set": number, "kind": kind, "group": code % len(names), "document": code // len(names)})
            rows.append(frame.assign(n=np.bincount(at, minlength=len(code)), **sums))
        return pd.concat(rows).reindex(columns=["set", "kind", "group", "document", "n", "nll", *NAMES], fill_value=0.0)


def finished(folder: Path) -> None:
    """Forget the partial sums of a sweep whose rows are in the store."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _write(path: Path, frame: pd.DataFrame) -> None:
    temporary = path.with_suffix(".tmp")
    frame.to_parquet(temporary, index=False)
    temporary.replace(path)
