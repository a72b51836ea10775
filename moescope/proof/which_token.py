"""Row r of a decision is the token that the store will say it is: one token is changed, and the rows that move are looked at.

A layer whose rows lie in another order (sequence-first code, say) is recomputed without fault, since experts do not care whose
row they get; only the names would be wrong. What moves is what enters the routed block, so ties and capacities do not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..contracts import Call, Site
from ..errors import ProofFailed
from .watching import Run, observed

_MOVED = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the largest value; coarser types: 0.05
_IDS = ("input_ids", "decoder_input_ids")


@dataclass(frozen=True)
class Change:
    """Inputs with one token (or one whole picture) of the last sequence changed. `place`: which token, None where many are."""

    inputs: dict[str, Any]
    sequences: int
    places: int | None  # per sequence, of text
    place: int | None
    stack: str  # whose places they are

    @property
    def last(self) -> int:
        """The sequence that was changed."""
        return self.sequences - 1


def changed(inputs: Mapping[str, Any], config: Any) -> Change | None:
    """What to change in `inputs`; None where there is nothing whose rows could be told."""
    ids: Any = inputs.get("input_ids")
    if torch.is_tensor(ids) and ids.dim() == 2 and not ids.is_floating_point():
        return _id_changed(inputs, ids, config)
    for name in ("inputs_embeds", "pixel_values", "hidden_states", *inputs):
        value: Any = inputs.get(name)
        if torch.is_tensor(value) and value.is_floating_point() and value.dim() >= 3 and len(value) > 1:
            other = value.clone()
            other[-1] = other[-1].flip(-1) + 0.5 * other[-1].std()
            return Change({**inputs, name: other}, len(value), None, None, "")
    return None


def _id_changed(inputs: Mapping[str, Any], ids: Tensor, config: Any) -> Change | None:
    """Another id in the middle of the last row, at a place that is no padding and no id that means something."""
    meant = {value for name, value in vars(config).items() if name.endswith("_token_id") and isinstance(value, int)} if (
        config is not None and hasattr(config, "__dict__")) else set()  # fmt: skip
    mask: Any = inputs.get("attention_mask")
    real = mask[-1].bool() if torch.is_tensor(mask) and mask.shape == ids.shape else torch.ones_like(ids[-1], dtype=torch.bool)
    free = [p for p, (one, ok) in enumerate(zip(ids[-1].tolist(), real.tolist())) if ok and one not in meant]
    others = [one for one in ids.flatten().tolist() if one not in meant]
    if not free:
        return None
    place = free[len(free) // 2]
    new = next((one for one in others if one != int(ids[-1, place])), None)
    if new is None:
        return None
    moved = ids.clone()
    moved[-1, place] = new
    stack = "encoder" if "decoder_input_ids" in inputs else "decoder"
    return Change({**inputs, "input_ids": moved}, len(ids), ids.shape[1], place, stack)


def check_rows(sites: list[Site], calls: dict[str, list[Call]], change: Change, run: Run) -> dict[str, str]:
    """One forward on the changed inputs, held against `calls`. ProofFailed where rows moved that are of other tokens.

    Gives a sentence for each site where all rows move with one token (activations quantized over the whole batch).

    Where tokens of several sequences compete for places, what a token becomes behind the router depends on all of them: the
    routers that come later are not asked.
    """
    with observed(sites) as seen:
        run()
    met: set[str] = set()
    notes: dict[str, str] = {}
    for site in sorted(sites, key=lambda site: list(calls).index(site.name)):  # as they fired
        if not calls[site.name] or not seen[site.name]:
            continue
        before, after = calls[site.name][0], seen[site.name][0]
        moved = _moved(before, after)
        if moved is not None and change.sequences > 1 and float(moved.min()) > _MOVED.get(before.output.dtype, 0.05):
            notes[site.name] = "every row moves with every token, so that which token a row is could not be shown"
        elif moved is not None:
            _check(site, before, moved, change, first=site.stack not in met)
        met.add(site.stack)
        if _competes(before, change):
            break
    return notes


def _moved(before: Call, after: Call) -> Tensor | None:
    """(T,) how far what enters the block moved for each row, as a share of its largest value; None where nothing says."""
    rows = len(before.record.experts)
    one, other = (call.inputs[0] if call.inputs and torch.is_tensor(call.inputs[0]) else None for call in (before, after))
    if one is None or other is None or one.shape != other.shape or one.dim() < 2 or one.numel() // one.shape[-1] != rows:
        return None
    one, other = (t.reshape(rows, -1).float() for t in (one, other))
    return (one - other).abs().amax(-1) / (float(one.abs().max()) or 1.0)


def _competes(call: Call, change: Change) -> bool:
    """Whether tokens of several sequences share places of one expert."""
    record = call.record
    if record.pool is None:
        return record.capacity is not None or record.site.contract.capacity or record.site.contract.keeps_drops
    return len(record.pool) > 0 and len(record.pool.unique()) < change.sequences


def _check(site: Site, call: Call, moved: Tensor, change: Change, first: bool) -> None:
    named = _named(call, change)
    if named is None:
        return
    sequence, place = named
    far = moved > _MOVED.get(call.output.dtype, 0.05)
    others = (far & (moved > 0.2 * moved.max()))[sequence != change.last]  # Doge lets a little through from token to token
    if len(others) and float(others.float().mean()) > (0 if first else 0.25):
        raise _refused(site, f"a change in sequence {change.last} moved {int(others.sum())} rows of other sequences")
    if place is None or change.place is None or site.stack != change.stack or not bool(far.any()):
        return
    mine = sequence == change.last
    here, earlier, later = (mine & (place == change.place), mine & (place < change.place), mine & (place > change.place))
    astray = bool(here.any()) and not bool(far[here].all())
    backwards = first and bool(far[earlier].any()) and bool(later.any()) and not bool(far[later].any())
    if astray or backwards:
        row = int(moved.argmax())
        raise _refused(site, f"token {change.place} of sequence {change.last} was changed, and row {row} moved most")


def _refused(site: Site, what: str) -> ProofFailed:
    return ProofFailed(
        f"rows of {site.path} are not the tokens they would be stored as: {what} (contract {site.contract.name!r} must say "
        "which places of the stream they are: Record.rows); nothing is traced"
    )


def _named(call: Call, change: Change) -> tuple[Tensor, Tensor | None] | None:
    """(sequence, place) of every row as the store will have them, place None where only the sequence is known."""
    record = call.record
    count, device = len(record.experts), record.experts.device
    at = torch.arange(count, device=device) if record.rows is None else record.rows.to(device)
    if record.site.unit != "token":
        return (at, None) if count == change.sequences else None
    if change.places is not None and (record.rows is not None or count == change.sequences * change.places):
        return at // change.places, at % change.places
    if record.rows is None and count % change.sequences == 0:
        return at // (count // change.sequences), None
    return None
