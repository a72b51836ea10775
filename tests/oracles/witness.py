"""What really runs, seen below all hooks: the classes' own forwards are wrapped, and no line of moescope takes part.

A call is one forward of the traced model, or of its encoder alone. Whoever calls says which tokens are in it (`Witness.told`).
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from recount import _mask, _numbers, _pairs, _zaya
from torch import nn

_COUNTS = {"SwitchTransformersExperts": _mask, "NllbMoeExperts": _numbers, "ZayaExperts": _zaya}


AGAIN = -1  # a row that may be run again under its own name: what is stored of it comes in the order of the text


@dataclass(frozen=True)
class Cell:
    """A token in a call; None where nobody can say, or where either will do."""

    place: int  # in the flattened batch, padding counted
    row: int | None  # tokens of one number are of one sequence
    position: int | None
    vocab_id: int | None
    generated: bool | None


@dataclass
class Call:
    """One forward: its tokens by stack, its phase, and what entered the experts of every block."""

    cells: dict[str, list[Cell]]
    phase: str | None
    entered: dict[str, list[dict[int, float]]] = field(default_factory=dict)
    failed: bool = True


Told = Callable[[Mapping[str, Any]], tuple[dict[str, list[Cell]], str | None]]
"""From the arguments of a forward to what is in it."""


class Witness:
    """Calls of one model in the order of their beginning, while `watching`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[Call] = []
        self._here = threading.local()
        get_encoder = getattr(model, "get_encoder", None) if model.config.is_encoder_decoder else None  # type: ignore[union-attr]
        self._roots = [model] + ([get_encoder()] if get_encoder else [])
        self._blocks = {m: n.rpartition(".")[0] for n, m in model.named_modules() if n.endswith(".experts")}

    def tell(self, told: Told | None) -> None:
        """What the next forwards of this thread are; None: nobody's."""
        self._here.told = told

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the forwards of the classes, for all their instances, and give them back."""
        kinds = {type(m): self._root for m in self._roots} | {type(m): self._experts for m in self._blocks}
        own = {kind: kind.forward for kind in kinds}
        try:
            for kind, around in kinds.items():
                kind.forward = _wrapped(own[kind], around)  # type: ignore[method-assign]
            yield
        finally:
            for kind, forward in own.items():
                kind.forward = forward  # type: ignore[method-assign]

    def _root(self, forward: Callable[..., Any], module: Any, args: Any, kwargs: Any) -> Any:
        told = getattr(self._here, "told", None)
        if told is None or not any(module is root for root in self._roots) or getattr(self._here, "call", None) is not None:
            return forward(module, *args, **kwargs)
        call = self._here.call = Call(*told(kwargs))
        self.calls.append(call)
        try:
            output = forward(module, *args, **kwargs)
            call.failed = False
            return output
        finally:
            self._here.call = None

    def _experts(self, forward: Callable[..., Any], module: Any, args: Any, kwargs: Any) -> Any:
        call = getattr(self._here, "call", None)
        if call is not None and module in self._blocks and not kwargs:
            given = [a.detach() for a in args]
            call.entered[self._blocks[module]] = _COUNTS.get(type(module).__name__, _pairs)(*given)
        return forward(module, *args, **kwargs)


def _wrapped(forward: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def method(module: Any, *args: Any, **kwargs: Any) -> Any:
        return around(forward, module, args, kwargs)

    return method


def differences(store: Any, run: int, calls: list[Call]) -> list[str]:
    """What a run of a store says otherwise than the calls, in sentences; none where all is right."""
    calls = [call for call in calls if not call.failed]
    forwards = store.rows("select forward, phase from forwards where run = ? order by forward", [run])
    if len(forwards) != len(calls):
        return [f"{len(calls)} forwards ran and {len(forwards)} are stored"]
    rows = store.rows(
        """select d.forward, r.name, d.token, t.sequence, t.position, t.vocab_id, t.generated, s.stack from decisions d
        join routers r on r.router = d.router and r.run = d.run join tokens t on t.token = d.token and t.run = d.run
        join sequences s on s.sequence = t.sequence and s.run = d.run where d.run = ? order by d.forward, r.name, d.token""",
        [run],
    )
    chosen: dict[Any, dict[int, float]] = {}
    for forward, name, token, expert, weight in store.rows(
        """select a.forward, r.name, a.token, a.expert, a.weight from assignments a join routers r
        on r.router = a.router and r.run = a.run where a.run = ? and not a.dropped""", [run]
    ):  # fmt: skip
        chosen.setdefault((forward, name, token), {})[expert] = weight
    stored: dict[Any, list[Any]] = {}
    for forward, name, *rest in rows:
        stored.setdefault((forward, name.rpartition(".")[0]), []).append((name, *rest))
    said: list[str] = []
    named: dict[int, int] = {}
    for number, ((forward, phase), call) in enumerate(zip(forwards, calls)):
        if call.phase not in (None, phase):
            said.append(f"call {number}: its phase is {call.phase}, stored is {phase}")
        for block, entered in call.entered.items():
            found = stored.pop((forward, block), [])
            said += [f"call {number}, {block}: {text}" for text in _block(call, entered, found, forward, chosen, named)]
    said += [f"stored, but never ran: {key}" for key in stored]
    return list(dict.fromkeys(said))


def _block(call: Call, entered: Any, found: list[Any], forward: int, chosen: Any, named: dict[int, int]) -> Iterator[str]:
    stack = found[0][-1] if found else next(iter(call.cells))
    cells = call.cells.get(stack, [])
    if any(cell.row == AGAIN for cell in cells):
        found = sorted(found, key=lambda row: (row[2], row[3]))
    if len(found) != len(cells):
        yield f"{len(cells)} tokens ran in {stack} and {len(found)} are stored"
        return
    for cell, (name, token, sequence, position, vocab_id, generated, _) in zip(cells, found):
        where = f"place {cell.place}"
        if cell.row not in (None, AGAIN) and named.setdefault(cell.row, sequence) != sequence:
            yield f"{where} is of sequence {sequence}, its tokens before of {named[cell.row]}"
        elif cell.row not in (None, AGAIN) and any(other == sequence for row, other in named.items() if row != cell.row):
            yield f"{where} shares sequence {sequence} with another's tokens"
        for what, ours, theirs in (
            ("position", cell.position, position),
            ("id", cell.vocab_id, vocab_id),
            ("generated", cell.generated, generated),
        ):
            if ours is not None and ours != theirs:
                yield f"{where}: its {what} is {ours}, stored is {theirs}"
        row = chosen.get((forward, name, token), {})
        if not _alike(row, entered[cell.place]):
            yield f"{where}: {entered[cell.place]} entered, stored is {row}"


def _alike(row: dict[int, float], other: dict[int, float]) -> bool:
    return row.keys() == other.keys() and all(abs(w - other[e]) <= 1e-6 * max(1.0, abs(w)) for e, w in row.items())


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that a forward, a proof or a hook could leave behind in a model, in a form that compares."""
    found: dict[str, Any] = {name: _plain(t) for name, t in model.state_dict().items()}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_modules"):
                found[f"{name}:{key}"] = _plain(value)
        found |= {f"{name}.{key}:grad": _plain(p.grad) for key, p in module.named_parameters(recurse=False)}
        found[f"{name}:trains"] = [p.requires_grad for p in module.parameters(recurse=False)]
    return found


def _plain(value: Any) -> Any:
    if torch.is_tensor(value):
        return (
            str(value.dtype),
            tuple(value.shape),
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, dict):
        return {str(k) if isinstance(k, str) else n: _plain(v) for n, (k, v) in enumerate(value.items())}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else type(value).__qualname__
