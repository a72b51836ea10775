"""What the routers of a loaded GGUF do, learnt from a few tokens; refused where it does not follow from their logits."""

from collections.abc import Mapping
from typing import Any

from ...errors import ModelError, ProofFailed
from ...routers.rule import Rule, disagreement
from .engine import Engine, Piece
from .header import Header
from .listening import Heard

_TOKENS = 16
_SCORES = {"SOFT_MAX": "softmax", "SIGMOID": "sigmoid", "SQRT": "sqrtsoftplus", "MUL_MAT": "softmax", "ADD": "softmax"}


def learn(engine: Engine, header: Header) -> dict[int, Rule]:
    """{layer: its rule}. ModelError for routers of a form that is not read, ProofFailed where weights do not follow."""
    tokens = [(7 * number + 3) % engine.size for number in range(min(_TOKENS, int(header.fact("context_length", _TOKENS))))]
    engine.forget(len(tokens), 1)
    ran = engine.run([Piece(0, 0, tokens)])
    heard = engine.heard
    found = {layer: _rule(header, layer, heard[layer]) for layer in ran.layers if _whole(header, layer, ran.layers[layer])}
    if missing := sorted(set(header.routed) - found.keys()):
        raise ModelError(
            f"llama.cpp evaluated no router in layer {missing[0]} of {header.path} ({header.architecture}), which has one: "
            "this architecture is not read"
        )
    for layer, rule in found.items():
        check(header, layer, rule, ran.layers[layer])
    return found


def check(header: Header, layer: int, rule: Rule, ran: Mapping[str, Any]) -> None:
    """ProofFailed where what ran in a layer does not follow from its logits."""
    wrong = disagreement(rule, ran["logits"], ran["topk"], ran["weights"])
    if wrong is not None:
        raise ProofFailed(
            f"router blk.{layer}.ffn_gate_inp of {header.path} ({header.architecture}): {wrong}, by the rule that llama.cpp's "
            f"graph shows ({rule}); nothing is traced"
        )


def _whole(header: Header, layer: int, arrays: Mapping[str, Any]) -> bool:
    """Whether a layer is routed. ModelError where a part of what it did is not told."""
    if missing := [name for name in ("logits", "topk", "weights") if name not in arrays]:
        raise ModelError(
            f"llama.cpp tells nothing of the {missing[0]} of the router in layer {layer} of {header.path} "
            f"({header.architecture}): this architecture is not read"
        )
    k, experts = arrays["topk"].shape[1], arrays["logits"].shape[1]
    said = header.fact("expert_count"), header.fact("expert_used_count")
    if isinstance(said[0], int) and isinstance(said[1], int) and (experts, k) != said:
        raise ModelError(
            f"layer {layer} of {header.path} chose {k} of {experts} experts, and its header says {said[1]} of {said[0]}: this "
            f"architecture ({header.architecture}) is not read"
        )
    return True


def _rule(header: Header, layer: int, heard: Heard) -> Rule:
    kinds, where = heard.kinds, f"layer {layer} of {header.path} ({header.architecture})"
    if heard.twice:
        raise ModelError(f"{where} has two routers, which are not told apart")
    if kinds.get("probs") not in _SCORES:
        raise ModelError(f"{where} makes {kinds.get('probs')} of its logits, which moescope does not know as a score")
    order = list(kinds)
    if "weighted" in kinds and order.index("weighted") < order.index("weights"):
        raise ModelError(f"{where} weighs what enters its experts, which is not read")
    chosen = kinds["probs"] in ("MUL_MAT", "ADD")  # a softmax over those that were chosen
    return Rule(
        _SCORES[kinds["probs"]], chosen or "weights_norm" in kinds, heard.scale, heard.bias,
        int(header.fact("expert_group_count", 1) or 1) if "probs_masked" in kinds else 1,
        int(header.fact("expert_group_used_count", 1) or 1),
    )  # fmt: skip
