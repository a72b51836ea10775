"""A vector of the residual stream, read as logits: through the final norm as it was at that token, and the unembedding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError


@dataclass(eq=False)
class Unembedding:
    """`weight` (V, H); `gain` (H,) of the final norm; `centred`: the norm takes the mean away, too."""

    weight: Tensor
    norm: nn.Module | None
    gain: Tensor
    centred: bool

    def scaled(self, update: Tensor, final: Tensor) -> Tensor:
        """(n, H) updates as they go into the unembedding, the norm held at what it was for the final states (n, H)."""
        x, update = final.to(self.gain.device).float(), update.to(self.gain.device).float()
        if self.norm is None:
            return update
        if self.centred:
            x, update = x - x.mean(-1, keepdim=True), update - update.mean(-1, keepdim=True)
        eps = float(getattr(self.norm, "variance_epsilon", getattr(self.norm, "eps", None)) or 1e-6)
        return update * self.gain * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)

    def direction(self, update: Tensor) -> Tensor:
        """(n, H) updates with the gain alone: their logits are known but for one factor, which no order depends on."""
        update = update.to(self.gain.device).float()
        return (update - update.mean(-1, keepdim=True) if self.centred else update) * self.gain


def unembedding(model: Any, run: Any) -> tuple[Unembedding, "Final"]:
    """Found in one forward `run()`: the norm is the module whose output the head takes. ModelError without a head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None or not hasattr(head, "weight"):
        raise ModelError("the model has no unembedding that can be found (get_output_embeddings), so nothing is read as logits")
    width, seen, taken = head.weight.shape[1], [], []
    norms = [m for m in model.modules() if getattr(m, "weight", None) is not None and tuple(m.weight.shape) == (width,)]
    handles = [m.register_forward_hook(lambda m, a, o: seen.append((m, a[0], o))) for m in norms]
    handles.append(head.register_forward_pre_hook(lambda _, a: taken.append(a[0])))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    last = [
        s for s in seen if torch.is_tensor(s[2]) and taken and s[2].shape == taken[-1].shape and torch.equal(s[2], taken[-1])
    ]
    if not last:
        return Unembedding(head.weight.detach().float(), None, torch.ones(width, device=head.weight.device), False), Final(
            head, None
        )
    norm, before, after = last[-1]
    return _norm(head, norm, before.detach().float(), after.detach().float()), Final(head, norm)


def _norm(head: Any, norm: Any, before: Tensor, after: Tensor) -> Unembedding:
    weight = norm.weight.detach().float()
    for centred in (False, True):
        for gain in (weight, 1 + weight):
            found = Unembedding(head.weight.detach().float(), norm, gain, centred)
            made = found.scaled(before, before)
            bias = getattr(norm, "bias", None)
            made = made if bias is None else made + bias.detach().float()
            if torch.allclose(made, after, rtol=0.05, atol=0.02 * float(after.abs().max())):
                return found
    raise ModelError(
        f"the final norm ({type(norm).__name__}) is no RMS norm or layer norm that is known here, so it cannot be held"
    )


class Final:
    """While open: the states before the final norm (or the head, where there is none), of the last forward."""

    def __init__(self, head: Any, norm: Any) -> None:
        self._module, self.states = norm if norm is not None else head, torch.zeros(0)
        self._handle: Any = None

    def _keep(self, _: Any, args: tuple[Any, ...]) -> None:
        self.states = args[0].detach()

    def __enter__(self) -> "Final":
        self._handle = self._module.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
