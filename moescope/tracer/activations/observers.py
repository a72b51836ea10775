"""Activations that a trace sums up on its way and never keeps: expert importance, and the dimensionality of states.

importance: EAN Σ‖f‖, weighted EAN Σ g‖f‖, REAP mean g‖f‖ (arXiv 2510.13999), and the largest |activation| an expert returned
(super experts, arXiv 2507.23279), per router and expert, by assignment; f is the expert's own output, g its
routing weight. dimensionality: participation ratios of the residual stream after each routed layer, of what each expert
receives and returns, and of what modules return that fire more than once in a forward pass, firing by firing (recursive.py).
Both run the experts once more for every forward: they are asked for, not default.
Summed up are the rows that are stored, by the rule that names them (sequences.py), with the sequence as the unit: no padding,
no forward that failed, no batch that was broken off; tokens that are run again count again, as decisions do. An option that
stores fewer decisions to save space (`fraction`) leaves no token out here.
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
from ...routers.contribution import contribution
from ...statistics.moments import States, slow_over_fast
from ...store import RunWriter
from ...weights import home
from ...words import listed
from ..capture.frames import Frame, Frames, Stream
from ..capture.inner_runs import depth
from ..handover.record_batches import references
from ..sequences.naming import Sequences
from .recursive import Repeated, states_of
from .sums import ActivationSums, Where

KINDS = ("importance", "dimensionality")
_NAMES = ("ean", "weighted_ean", "reap", "max_down_proj")


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
        self.sums = ActivationSums()
        self._sequences, self._tokens = Sequences(_Numbers(), stops), _Numbers()
        self._rows_of: dict[int, tuple[Stream, Tensor, np.ndarray]] = {}  # by stream of the forward that is open
        self._parts: dict[Site, Tensor] = {}  # in it: places in the stream, of routers that see a part of the tokens
        self._sampled = False
        self._fired: dict[Repeated, int] = {}
        self._left: set[str] = set()  # modules whose states did not fit
        self._whole: set[str] = set()  # routers whose decisions are not one for each token
        self._said: list[str] = []
        self._within = {True: False, False: False}  # whether something was seen inside, and outside, of a run in a run
        self.looked: dict[tuple[int, str], tuple[Frame, str, tuple[int, int]]] = {}  # calls in which repeated modules fired

    def hook(self, sites: list[Site], repeated: list[Repeated]) -> list[Any]:
        """Watch the experts of every site, what its layer returns, and what repeated modules return."""
        if not sites:
            names = ", ".join(r.short for r in repeated)
            self._said.append(f"the model has no router: kept are its tokens and participation ratios of the states of {names}")
        handles: list[Any] = [hooks.after(r.module, lambda _, __, o, r=r: self._cycle(r, o)) for r in repeated]
        for site in sites if self.kinds else []:
            records: list[Record] = []
            handles += site.contract.watch(site, lambda i, o, site=site, r=records: self._called(site, r, i, o))  # type: ignore[misc]
            handles += site.contract.listen(site, records.append)
            parent = getattr(site, "parent", None)
            if "dimensionality" in self.kinds and parent is not None and not isinstance(parent, nn.ModuleList):
                handles.append(hooks.after(parent, lambda _, __, o, site=site: self._residual(site, o)))
        return handles

    def forward_begins(self, sampled: bool) -> None:
        """Firings are counted anew; `sampled`: this forward is recorded."""
        self._sampled = sampled
        self._fired, self.looked, self._parts, self._rows_of = {}, {}, {}, {}
        self.sums.reach("forward")

    def notes(self) -> list[str]:
        """Sentences on what was left out."""
        said = list(self._said)
        if self._within == {True: True, False: False}:
            said.append("the model does all its work in calls of itself inside its own call: no activations were summed up")
        if self._whole:
            said.append(
                f"routers {listed(sorted(self._whole))} decide of more than a token at a time, or see some of the tokens only: "
                "what their experts made was not summed up"
            )
        return said + [
            f"states of {path} were left out wherever they were not those of the input's sequences and tokens"
            for path in sorted(self._left)
        ]

    def _called(self, site: Site, records: list[Record], inputs: tuple[Any, ...], output: Tensor) -> None:
        """A block's call, if it was one with a decision, and with one for each row of what went in."""
        if not records:
            return
        call = Call(records.pop(), inputs, output)
        rows = {inputs[0].shape[0], inputs[0].shape[:-1].numel()}  # attention's experts take (T, k, head)
        if site.unit != "token" or len(call.record.experts) not in rows:
            self._whole.add(site.path)
        else:
            self._experts(site, call)

    @torch.no_grad()
    def _experts(self, site: Site, call: Call) -> None:
        frame, record = self._mine(), call.record
        if frame is None:
            return
        if record.rows is not None:
            self._parts[site] = record.rows
        real, groups = self._rows(frame, site, len(record.experts) if record.rows is None else -1)
        inputs = call.inputs[0].reshape(len(real), -1)
        for expert in range(site.n_experts):
            times, gate = _chosen(record, expert)
            rows = ((times > 0) & real).nonzero()[:, 0]
            if len(rows):
                made = _outputs(call, expert, rows, gate[rows])
                self._add(site, expert, inputs[rows], made, gate[rows], times[rows], groups[rows.cpu().numpy()])

    def _add(
        self, site: Site, expert: int, inputs: Tensor, made: Tensor, gate: Tensor, times: Tensor, groups: np.ndarray
    ) -> None:
        number = site.key
        if "importance" in self.kinds:
            self.sums.weigh(number, site.n_experts, expert, made, gate, times)
        if "dimensionality" in self.kinds:
            for stream, states in (("expert input", inputs), ("expert output", made)):
                self.sums.see((number, expert, stream, None), states, groups)

    def _residual(self, site: Site, output: Any) -> None:
        frame = self._mine()
        hidden = output[0] if isinstance(output, tuple) else output
        if frame is None or not torch.is_tensor(hidden) or hidden.dim() != 3:
            return
        real, groups = self._rows(frame, site, hidden.shape[0] * hidden.shape[1])
        states, part = hidden.detach().flatten(0, 1), self._parts.get(site)
        self._take((site.key, None, "residual", None), states if part is None else states[part], real, groups)

    def _cycle(self, module: Repeated, output: Any) -> None:
        frame, hidden = self._mine(), states_of(output)
        if frame is None:
            return
        number = self._fired[module] = self._fired.get(module, -1) + 1
        if hidden is None or not self._frames().fits(frame, (hidden.shape[0], hidden.shape[1])):
            self._left.add(module.path)
            return
        self.looked.setdefault((id(frame), module.stack), (frame, module.stack, (hidden.shape[0], hidden.shape[1])))
        real, groups = self._rows_in(frame, module.stack, hidden.shape[0] * hidden.shape[1], hidden.shape[1])
        self._take((None, None, module.short, number), hidden.detach().flatten(0, 1), real, groups)

    def _take(self, where: Where, states: Tensor, real: Tensor, groups: np.ndarray) -> None:
        self.sums.see(where, states[real], groups[real.cpu().numpy()])

    def _mine(self) -> Frame | None:
        """The open call, if this forward is recorded and this is no run of the model inside its own call."""
        frame = self._frames().mine() if self._sampled else None
        inner = frame is not None and depth(frame) > 0
        if frame is not None:
            self._within[inner] = True
        return None if inner else frame

    def _rows(self, frame: Frame, site: Site, rows: int) -> tuple[Tensor, np.ndarray]:
        """Which of the rows that a router saw are stored, and each row's sequence; `rows` as of a stream."""
        real, groups = self._rows_in(frame, site.stack, rows)
        part = self._parts.get(site)
        if part is None:
            return real, groups
        return real[part.to(real.device)] & (part >= 0).to(real.device), groups[part.cpu().numpy()]

    def _rows_in(self, frame: Frame, stack: str, rows: int, places: int = 0) -> tuple[Tensor, np.ndarray]:
        """The same of all rows of a stream; `places` of a sequence where the input does not say."""
        stream = self._frames().stream(frame, stack, rows)
        if id(stream) not in self._rows_of:
            whole = replace(stream, shape=(rows // places, places)) if stream.kind == "row" and places else stream
            arrays = {name.partition(":")[2]: t.cpu().numpy() for name, t in references([whole], None).items()}
            named = self._sequences.name(whole, arrays)
            keys = named.keys(self._tokens)
            named.fed(keys, arrays.get("ids"), whole.reruns)
            stored = torch.from_numpy(named.stored(keys).reshape(-1) >= 0).to(home(frame.module))
            self._rows_of[id(stream)] = stream, stored, named.sequence.reshape(-1)
        return self._rows_of[id(stream)][1:]

    def measures(self, layers: dict[int, int | None]) -> list[dict[str, Any]]:
        """Rows of the table `measures`."""
        rows: list[dict[str, Any]] = []
        for router, sums in self.sums.importance.items():
            for expert, (count, norm, weighted, most) in enumerate(sums):
                values = (norm, weighted, weighted / max(count, 1), most)
                where = {"router": router, "layer": layers[router], "expert": expert, "n": int(count)}
                rows += [where | {"name": name, "value": value} for name, value in zip(_NAMES, values)]
        for (number, which, stream, iteration), states in self.sums.states.items():
            where = {"iteration": iteration} if number is None else {"router": number, "layer": layers[number], "expert": which}
            rows += states.measures(subset=stream, **where)
        return rows + slow_over_fast(self._cycles())

    def _cycles(self) -> dict[str, list[States]]:
        """Of every repeated module the states of its firings, in order."""
        found: dict[str, list[States]] = {}
        for (router, _, stream, _), states in self.sums.states.items():
            if router is None:
                found.setdefault(stream, []).append(states)
        return found


class _Numbers:
    """Gives so many new numbers, and says the first."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, count: int) -> int:
        self._next += count
        return self._next - count


def _chosen(record: Record, expert: int) -> tuple[Tensor, Tensor]:
    """(T,) how often each token ran the expert, and with which weight in all."""
    alive = record.experts == expert
    if record.dropped is not None:
        alive &= ~record.dropped
    return alive.sum(-1), record.weights.masked_fill(~alive, 0).float().sum(-1)


def _outputs(call: Call, expert: int, rows: Tensor, gate: Tensor) -> Tensor:
    """(n, H) what the expert itself returned for these tokens, whose weights are `gate` (n,).

    A weight of 0 leaves nothing to divide by: it is taken as 1, where it multiplies the output.
    """
    made, none = contribution(call, expert)[rows], gate == 0
    if bool(none.any()) and call.record.site.weight_on == "output":
        weights = call.record.weights.masked_fill(call.record.experts == expert, 1)
        plain = contribution(replace(call, record=replace(call.record, weights=weights)), expert)
        made = torch.where(none[:, None], plain[rows] / _chosen(call.record, expert)[0][rows, None], made)
    return made / gate.masked_fill(none, 1)[:, None]
