"""Activations that a trace sums up on its way and never keeps: expert importance, and the dimensionality of states.

importance: EAN Σ‖f‖, weighted EAN Σ g‖f‖, REAP mean g‖f‖ (arXiv 2510.13999), and the largest |activation| an expert returned
(super experts, arXiv 2507.23279), per router and expert, over tokens that are no padding; f is the expert's own output, g its
routing weight. dimensionality: participation ratios of the residual stream after each routed layer, and of what each expert
receives and returns. Both run the experts once more for every forward: they are asked for, not default.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analyses._moments import States
from ..contracts import Call, Record, Site
from ..errors import InputError
from ..interventions.contributions import contribution
from ..store import RunWriter
from .frames import Frame, Frames

KINDS = ("importance", "dimensionality")
_NAMES = ("ean", "weighted_ean", "reap", "max_down_proj")
Where = tuple[int, int | None, str]
"""(router number, expert or None, stream)"""


def measured(writer: RunWriter, rows: list[dict[str, Any]]) -> None:
    """Add rows of the table `measures`; null for what a row does not say."""
    if rows:
        writer.add("measures", {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for r in rows for n in r)})


class Observers:
    """Sums over all forwards of a trace, by router and expert."""

    def __init__(self, kinds: tuple[str, ...], frames: Callable[[], Frames]) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise InputError(f"there is no activation measure {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
        self.kinds, self._frames = kinds, frames
        self._sums: dict[int, np.ndarray] = {}
        self._states: dict[Where, States] = {}
        self._first = 0  # number of the first sequence of the forward that is open

    def hook(self, sites: list[Site]) -> list[Any]:
        """Watch the experts of every site, and what its layer returns."""
        handles: list[Any] = []
        for site in sites if self.kinds else []:
            records: list[Record] = []
            handles += site.contract.listen(site, records.append)
            handles += site.contract.watch(site, lambda i, o, site=site, r=records: self._experts(site, Call(r.pop(), i, o)))  # type: ignore[misc]
            parent = getattr(site, "parent", None)
            if "dimensionality" in self.kinds and parent is not None and not isinstance(parent, nn.ModuleList):
                handles.append(parent.register_forward_hook(lambda _, __, o, site=site: self._residual(site, o)))
        return handles

    def forward_ended(self, sequences: int) -> None:
        """The next forward's sequences are others."""
        self._first += sequences

    @torch.no_grad()
    def _experts(self, site: Site, call: Call) -> None:
        frame = self._frames().mine()
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
                self._see((number, expert, stream), states, groups)

    def _residual(self, site: Site, output: Any) -> None:
        frame = self._frames().mine()
        hidden = output[0] if isinstance(output, tuple) else output
        if frame is None or not torch.is_tensor(hidden) or hidden.dim() != 3:
            return
        real, groups = self._rows(frame, site.stack, hidden.shape[0] * hidden.shape[1])
        keep = real.cpu().numpy()
        self._see((site.extra["number"], None, "residual"), hidden.detach().flatten(0, 1)[real], groups[keep])

    def _see(self, where: Where, states: Tensor, groups: np.ndarray) -> None:
        if where not in self._states:
            self._states[where] = States(covariance=where[1] is None)
        self._states[where].update(states.float().cpu().numpy(), groups)

    def _rows(self, frame: Frame, stack: str, rows: int) -> tuple[Tensor, np.ndarray]:
        """Which rows are no padding, and the number of each row's sequence."""
        shape, mask = self._frames().places(frame, stack, rows)
        device = next(frame.module.parameters()).device
        real = torch.ones(rows, dtype=torch.bool, device=device) if mask is None else mask.reshape(-1).bool()
        return real, self._first + np.arange(rows) // shape[1]

    def measures(self, layers: dict[int, int | None]) -> list[dict[str, Any]]:
        """Rows of the table `measures`."""
        rows: list[dict[str, Any]] = []
        for router, sums in self._sums.items():
            for expert, (count, norm, weighted, most) in enumerate(sums):
                values = (norm, weighted, weighted / max(count, 1), most)
                where = {"router": router, "layer": layers[router], "expert": expert, "n": int(count)}
                rows += [where | {"name": name, "value": value} for name, value in zip(_NAMES, values)]
        for (number, which, stream), states in self._states.items():
            rows += states.measures(router=number, layer=layers[number], expert=which, subset=stream)
        return rows
