"""Activations that a trace sums up on its way and never keeps: expert importance, and the dimensionality of states.

importance: EAN Σ‖f‖, weighted EAN Σ g‖f‖, REAP mean g‖f‖ (arXiv 2510.13999), and the largest |activation| an expert returned
(super experts, arXiv 2507.23279), per router and expert, over tokens that are no padding; f is the expert's own output, g its
routing weight. dimensionality: participation ratios of the residual stream after each routed layer, of what each expert
receives and returns, and of what modules return that fire more than once in a forward pass, firing by firing (cycles.py).
Both run the experts once more for every forward: they are asked for, not default.
The sequence is the unit: forwards that go on with a key–value cache go on with its sequences, all others have new ones. Padding
is left out by the mask, and so is what is fed for a generated sequence that has ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import hooks
from ..analyses._moments import States, slow_over_fast
from ..contracts import Call, Record, Site
from ..errors import InputError
from ..interventions.contributions import contribution
from ..store import RunWriter
from ..weights import home
from .calls import Frame
from .cycles import Repeated, states_of
from .frames import Frames, Stream

KINDS = ("importance", "dimensionality")
_NAMES = ("ean", "weighted_ean", "reap", "max_down_proj")
Where = tuple[int | None, int | None, str, int | None]
"""(router number, expert or None, stream, iteration): a router's, or a repeated module's with its firing number"""
_KEPT = 64  # generations whose sequences are remembered


def measured(writer: RunWriter, rows: list[dict[str, Any]]) -> None:
    """Add rows of the table `measures`; null for what a row does not say."""
    if rows:
        writer.add("measures", {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for r in rows for n in r)})


@dataclass
class _Batch:
    """Sequences that later forwards may go on with; `ended` (size,): a token that ends it was fed, what follows is padding."""

    first: int
    size: int
    ended: np.ndarray

    def over(self, ids: Tensor | None, stops: list[list[int]]) -> np.ndarray:
        """(size,) for which sequences these ids (size, places) are padding."""
        return self.ended & (True if ids is None else np.isin(ids[:, 0].cpu().numpy(), stops[1]))

    def fed(self, ids: Tensor, stops: list[list[int]]) -> None:
        """Ids (size, places) of generated tokens were run."""
        self.ended = self.over(ids, stops) | np.isin(ids[:, 0].cpu().numpy(), stops[0])


class Observers:
    """Sums over all forwards of a trace, by router and expert."""

    def __init__(self, kinds: tuple[str, ...], frames: Callable[[], Frames], stops: tuple[set[int], set[int]]) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise InputError(f"there is no activation measure {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
        self.kinds, self._frames = kinds, frames
        self._stops = [list(ids) for ids in stops]
        self._sums: dict[int, np.ndarray] = {}
        self._states: dict[Where, States] = {}
        self._next = 0  # number of the next new sequence
        self._batches: dict[int | None, _Batch] = {}  # by generation
        self._sampled = False
        self._fired: dict[Repeated, int] = {}
        self._left: set[str] = set()  # modules whose states did not fit
        self._said: list[str] = []
        self.looked: dict[tuple[int, str], tuple[Frame, str, tuple[int, int]]] = {}  # calls in which repeated modules fired

    def hook(self, sites: list[Site], repeated: list[Repeated]) -> list[Any]:
        """Watch the experts of every site, what its layer returns, and what repeated modules return."""
        if not sites:
            names = ", ".join(r.short for r in repeated)
            self._said.append(f"the model has no router: kept are its tokens and participation ratios of the states of {names}")
        handles: list[Any] = [hooks.after(r.module, lambda _, __, o, r=r: self._cycle(r, o)) for r in repeated]
        for site in sites if self.kinds else []:
            records: list[Record] = []
            handles += site.contract.listen(site, records.append)
            handles += site.contract.watch(site, lambda i, o, site=site, r=records: self._experts(site, Call(r.pop(), i, o)))  # type: ignore[misc]
            parent = getattr(site, "parent", None)
            if "dimensionality" in self.kinds and parent is not None and not isinstance(parent, nn.ModuleList):
                handles.append(hooks.after(parent, lambda _, __, o, site=site: self._residual(site, o)))
        return handles

    def forward_begins(self, sampled: bool) -> None:
        """Firings are counted anew; `sampled`: this forward is recorded."""
        self._sampled = sampled
        self._fired, self.looked = {}, {}

    def forward_ended(self, streams: list[Stream]) -> None:
        """The next forward's sequences are others, but where it goes on with a cache."""
        if not self.kinds:
            return
        new = [s for s in streams if not s.continues or self._batch(s.generation, s.shape[0]) is None]
        begun: dict[int | None, _Batch] = {
            s.generation: _Batch(self._next, s.shape[0], np.zeros(s.shape[0], bool)) for s in new
        }
        self._batches = dict(list(self._batches.items())[-_KEPT:]) | begun
        self._next += max([s.shape[0] for s in new] + [shape[0] for *_, shape in self.looked.values()]) if new else 0
        for s in streams:
            if s.continues and s.decodes and s.ids is not None:
                self._batches[s.generation].fed(s.ids, self._stops)

    def _batch(self, generation: int | None, size: int) -> "_Batch | None":
        """The sequences that a call of so many rows goes on with."""
        found = self._batches.get(generation)
        return found if found is not None and found.size == size else None

    def notes(self) -> list[str]:
        """Sentences on what was left out."""
        return self._said + [
            f"states of {path} were left out wherever they were not those of the input's sequences and tokens"
            for path in sorted(self._left)
        ]

    @torch.no_grad()
    def _experts(self, site: Site, call: Call) -> None:
        frame = self._mine()
        if frame is None or call.record.rows is not None:
            return
        real, groups = self._rows(frame, site.stack, len(call.record.experts))
        inputs = call.inputs[0].reshape(len(real), -1)
        for expert in range(site.n_experts):
            gate = (call.record.weights * (call.record.experts == expert)).float().sum(-1)
            if call.record.dropped is not None:
                gate = gate * ~(call.record.dropped & (call.record.experts == expert)).any(-1)
            rows = ((gate != 0) & real).nonzero()[:, 0]
            if len(rows):
                made = contribution(call, expert)[rows] / gate[rows, None]
                self._add(site, expert, inputs[rows], made, gate[rows], groups[rows.cpu().numpy()])

    def _add(self, site: Site, expert: int, inputs: Tensor, made: Tensor, gate: Tensor, groups: np.ndarray) -> None:
        number = site.extra["number"]
        if "importance" in self.kinds:
            norm = made.norm(dim=-1)
            sums = self._sums.setdefault(number, np.zeros((site.n_experts, 4)))
            sums[expert, :3] += [len(norm), float(norm.sum()), float((gate * norm).sum())]
            sums[expert, 3] = max(sums[expert, 3], float(made.abs().max()))
        if "dimensionality" in self.kinds:
            for stream, states in (("expert input", inputs), ("expert output", made)):
                self._see((number, expert, stream, None), states, groups)

    def _residual(self, site: Site, output: Any) -> None:
        frame = self._mine()
        hidden = output[0] if isinstance(output, tuple) else output
        if frame is None or not torch.is_tensor(hidden) or hidden.dim() != 3:
            return
        self._take((site.extra["number"], None, "residual", None), hidden, *self._rows(frame, site.stack, _rows(hidden)))

    def _cycle(self, module: Repeated, output: Any) -> None:
        frame, hidden = self._mine(), states_of(output)
        if frame is None:
            return
        number = self._fired[module] = self._fired.get(module, -1) + 1
        if hidden is None or not self._frames().fits(frame, (hidden.shape[0], hidden.shape[1])):
            self._left.add(module.path)
            return
        self.looked.setdefault((id(frame), module.stack), (frame, module.stack, (hidden.shape[0], hidden.shape[1])))
        real, groups = self._rows(frame, module.stack, _rows(hidden), hidden.shape[1])
        self._take((None, None, module.short, number), hidden, real, groups)

    def _take(self, where: Where, hidden: Tensor, real: Tensor, groups: np.ndarray) -> None:
        self._see(where, hidden.detach().flatten(0, 1)[real], groups[real.cpu().numpy()])

    def _see(self, where: Where, states: Tensor, groups: np.ndarray) -> None:
        if where not in self._states:
            self._states[where] = States(covariance=where[1] is None)
        self._states[where].update(states.float().cpu().numpy(), groups)

    def _mine(self) -> Frame | None:
        """The open call, if this forward is recorded."""
        return self._frames().mine() if self._sampled else None

    def _rows(self, frame: Frame, stack: str, rows: int, places: int | None = None) -> tuple[Tensor, np.ndarray]:
        """Which rows are no padding, and the number of each row's sequence; `places` of each where the input does not say."""
        shape, mask = self._frames().places(frame, stack, rows)
        device = home(frame.module)
        real = torch.ones(rows, dtype=torch.bool, device=device) if mask is None else mask.reshape(-1).bool()
        batch = self._batch(self._frames().going_on(frame, stack), shape[0])
        if batch is not None and batch.ended.any():
            over = batch.over(self._frames().ids(frame, stack, shape), self._stops)
            real = real & ~torch.from_numpy(over.repeat(shape[1])).to(device)
        return real, (self._next if batch is None else batch.first) + np.arange(rows) // (places or shape[1])

    def measures(self, layers: dict[int, int | None]) -> list[dict[str, Any]]:
        """Rows of the table `measures`."""
        rows: list[dict[str, Any]] = []
        for router, sums in self._sums.items():
            for expert, (count, norm, weighted, most) in enumerate(sums):
                values = (norm, weighted, weighted / max(count, 1), most)
                where = {"router": router, "layer": layers[router], "expert": expert, "n": int(count)}
                rows += [where | {"name": name, "value": value} for name, value in zip(_NAMES, values)]
        for (number, which, stream, iteration), states in self._states.items():
            where = {"iteration": iteration} if number is None else {"router": number, "layer": layers[number], "expert": which}
            rows += states.measures(subset=stream, **where)
        return rows + slow_over_fast(self._cycles())

    def _cycles(self) -> dict[str, list[States]]:
        """Of every repeated module the states of its firings, in order."""
        found: dict[str, list[States]] = {}
        for (router, _, stream, _), states in self._states.items():
            if router is None:
                found.setdefault(stream, []).append(states)
        return found


def _rows(hidden: Tensor) -> int:
    return hidden.shape[0] * hidden.shape[1]
