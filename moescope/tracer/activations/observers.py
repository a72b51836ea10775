"""Activations that a trace sums up on its way and never keeps: expert importance, and the dimensionality of states.

importance: EAN Σ‖f‖, weighted EAN Σ g‖f‖, REAP mean g‖f‖ (arXiv 2510.13999), and the largest |activation| an expert returned
(super experts, arXiv 2507.23279), per router and expert, over tokens that are no padding; f is the expert's own output, g its
routing weight. dimensionality: participation ratios of the residual stream after each routed layer, of what each expert
receives and returns, and of what modules return that fire more than once in a forward pass, firing by firing (recursive.py).
Both run the experts once more for every forward: they are asked for, not default.
The sequence is the unit, by the rule that names the tokens of the trace (sequences.py): padding is out, and so are tokens run
again.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import hooks
from ...contracts import Call, Record, Site
from ...errors import InputError
from ...interventions.contributions import contribution
from ...statistics.moments import States, slow_over_fast
from ...store import RunWriter
from ...weights import home
from ..capture.frames import Frame, Frames, Stream
from ..handover.record_batches import references
from ..sequences.naming import Named, Sequences
from .recursive import Repeated, states_of

KINDS = ("importance", "dimensionality")
_NAMES = ("ean", "weighted_ean", "reap", "max_down_proj")
Where = tuple[int | None, int | None, str, int | None]
"""(router number, expert or None, stream, iteration): a router's, or a repeated module's with its firing number"""


def add_measures(writer: RunWriter, rows: list[dict[str, Any]]) -> None:
    """Add rows of the table `measures`; null for what a row does not say."""
    if rows:
        writer.add("measures", {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for r in rows for n in r)})


class Observers:
    """Sums over all forwards of a trace, by router and expert."""

    def __init__(self, kinds: tuple[str, ...], frames: Callable[[], Frames], stops: tuple[set[int], set[int]]) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise InputError(f"there is no activation measure {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
        self.kinds, self._frames = kinds, frames
        self._sequences, self._next = Sequences(self._take_numbers, stops), 0
        self._named: dict[int, tuple[Stream, Named]] = {}  # of the forward that is open
        self._sums: dict[int, np.ndarray] = {}
        self._states: dict[Where, States] = {}
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
            handles += site.contract.watch(site, lambda i, o, site=site, r=records: self._experts(site, Call(r.pop(), i, o)))  # type: ignore[misc]
            handles += site.contract.listen(site, records.append)
            parent = getattr(site, "parent", None)
            if "dimensionality" in self.kinds and parent is not None and not isinstance(parent, nn.ModuleList):
                handles.append(hooks.after(parent, lambda _, __, o, site=site: self._residual(site, o)))
        return handles

    def _take_numbers(self, count: int) -> int:
        self._next += count
        return self._next - count

    def forward_begins(self, sampled: bool) -> None:
        """Firings are counted anew; `sampled`: this forward is recorded."""
        self._sampled = sampled
        self._fired, self.looked = {}, {}
        self._named.clear()

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
        number = site.key
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
        self._take((site.key, None, "residual", None), hidden, *self._rows(frame, site.stack, _rows(hidden)))

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

    def _rows(self, frame: Frame, stack: str, rows: int, places: int = 0) -> tuple[Tensor, np.ndarray]:
        """Which rows are new tokens, and each row's sequence; `places` of one where the input does not say."""
        stream = self._frames().stream(frame, stack, rows)
        if stream.kind == "row" and places:
            stream = replace(stream, shape=(rows // places, places))
        if id(stream) not in self._named:
            arrays = {name.partition(":")[2]: t.cpu().numpy() for name, t in references([stream], None).items()}
            named = self._sequences.name(stream, arrays)
            named.fed(np.where(named.real, 0, -1), arrays.get("ids"), stream.reruns)
            self._named[id(stream)] = stream, named
        named = self._named[id(stream)][1]
        fresh = torch.from_numpy(named.fresh.reshape(-1)).to(home(frame.module))
        return fresh, named.sequence.reshape(-1)

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
