"""The settings of a V-MoE, named and nested as in the authors' configs (google-research/vmoe, vmoe/nn/vit_moe.py)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ...errors import InputError
from .parse import parse_call, read

MODEL_TYPE = "vmoe"
GROUP_IMAGES = 8  # images in one routing group in every published config (configs/vmoe_paper/common.py)
Kind = Literal["token_choice", "expert_choice", "soft"]
GroupSize = int | Literal["batch"] | None
KINDS: dict[str, Kind] = {
    "NoisyTopExpertsPerItemRouter": "token_choice",
    "NoisyTopItemsPerExpertRouter": "expert_choice",
    "SoftRouter": "soft",
}
# Hints about devices or metrics, which change no decision.
_HINTS = {"partition_spec", "einsum_precision", "precision", "compute_similarity_metrics", "dtype"}


@dataclass(frozen=True)
class DispatcherConfig:
    """How many tokens an expert takes per group, and who comes first (vmoe/moe.py, get_top_*_dispatcher)."""

    name: str = "einsum"
    capacity: int | None = None
    capacity_factor: float | None = None
    capacity_ceil_or_round: str = "ceil"
    capacity_multiple_of: int | None = 4
    batch_priority: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        """Refuse what the authors' dispatchers refuse."""
        if self.name not in ("einsum", "indices"):
            raise InputError(f"dispatcher {self.name!r} is unknown: it must be 'einsum' or 'indices'.")
        if self.capacity is not None and self.capacity_factor is not None:
            raise InputError("capacity and capacity_factor were both given: give one of them.")
        if self.capacity is not None and (not isinstance(self.capacity, int) or self.capacity < 1):
            raise InputError(f"capacity={self.capacity!r} must be a whole number of places per expert, at least 1.")
        if self.capacity_factor is not None and not 0 < self.capacity_factor < float("inf"):
            raise InputError(f"capacity_factor={self.capacity_factor!r} must be above 0.")
        if self.capacity_ceil_or_round not in ("ceil", "round"):
            raise InputError(f"capacity_ceil_or_round={self.capacity_ceil_or_round!r} must be 'ceil' or 'round'.")


@dataclass(frozen=True)
class RouterConfig:
    """A router (vmoe/nn/routing.py; vmoe/projects/soft_moe/router.py). `deterministic` None: noise in training only."""

    name: str = "NoisyTopExpertsPerItemRouter"
    num_selected_experts: int = 1
    noise_std: float = 1.0
    gshard_loss_weight: float = 0.0
    importance_loss_weight: float = 1.0
    load_loss_weight: float = 1.0
    deterministic: bool | None = None
    dispatcher: DispatcherConfig = field(default_factory=DispatcherConfig)
    num_slots: int | None = None  # soft only
    capacity_factor: float | None = None  # soft only, where num_slots is not given: None is 1.0

    def __post_init__(self) -> None:
        """Refuse names of routers that are not here."""
        if self.name.rsplit(".", 1)[-1] not in KINDS:
            raise InputError(f"router {self.name!r} is not among those built here: {', '.join(KINDS)}.")

    @property
    def kind(self) -> Kind:
        """Who chooses: tokens, experts, or nobody (soft slots)."""
        return KINDS[self.name.rsplit(".", 1)[-1]]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RouterConfig":
        """Read `router`, whose name may be a call such as 'SoftRouter(num_slots=1)'."""
        name, options = parse_call(values.get("name", cls.name))
        merged = {**options, **values, "name": name}
        if name.rsplit(".", 1)[-1] == "SoftRouter":
            merged.setdefault("noise_std", 0.0)
        merged["dispatcher"] = read(DispatcherConfig, merged.get("dispatcher") or {}, "dispatcher", _HINTS)
        return read(cls, merged, "router", _HINTS)


@dataclass(frozen=True)
class MoeConfig:
    """Which layers have experts, and how many tokens are routed together."""

    num_experts: int = 8
    layers: tuple[int, ...] = ()
    group_size: GroupSize = None  # tokens; None: 8 images; "batch": all tokens of a forward
    mlp_dim: int | None = None
    dropout_rate: float | None = None
    split_rngs: bool = False  # False: every expert begins with the same parameters
    router: RouterConfig = field(default_factory=RouterConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MoeConfig":
        """Read `moe`."""
        router = RouterConfig.from_dict(values.get("router") or {})
        split = values.get("split_rngs", False)
        split = split if isinstance(split, bool) else "params" in split
        layers = tuple(int(layer) for layer in values.get("layers", ()))
        return read(cls, {**values, "layers": layers, "split_rngs": split, "router": router}, "moe", {"name"})


@dataclass(frozen=True)
class EncoderConfig:
    """The blocks between patches and head (vmoe/nn/vit_moe.py, EncoderMoe)."""

    num_layers: int
    mlp_dim: int
    num_heads: int
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    attention_qk_norm: bool = False
    position_emb: dict[str, Any] | None = None  # {"name": "learned" | "none" | "sincos2d", "temperature": 10_000}
    moe: MoeConfig = field(default_factory=MoeConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderConfig":
        """Read `encoder`."""
        moe = MoeConfig.from_dict(values.get("moe") or {})
        return read(cls, {**values, "moe": moe}, "encoder", {"dtype", "deterministic", "name"})


@dataclass(frozen=True)
class VMoEConfig:
    """A whole V-MoE. `channels` and `image_size` (height, width) are ours: flax reads them from the arrays."""

    num_classes: int | None
    patch_size: tuple[int, int]
    hidden_size: int
    encoder: EncoderConfig
    classifier: str = "token"
    representation_size: int | None = None
    head_bias_init: float = 0.0
    head_kernel_zero_init: bool = True
    channels: int = 3
    image_size: tuple[int, int] | None = None

    model_type = MODEL_TYPE

    def __post_init__(self) -> None:
        """Refuse heads and layers that cannot be built."""
        if self.classifier not in ("token", "0", "gap", "map"):
            raise InputError(f"classifier {self.classifier!r} is unknown: it must be 'token', '0', 'gap' or 'map'.")
        if self.hidden_size % self.encoder.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of {self.encoder.num_heads} heads.")

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches, which tokens count row by row; None if the image size is not fixed."""
        if self.image_size is None:
            return None
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def tokens_per_image(self) -> int | None:
        """Patches of one image, and one more, the first, where there is a class token; None as for `grid`."""
        return None if self.grid is None else self.grid[0] * self.grid[1] + (self.classifier == "token")

    @classmethod
    def from_dict(cls, values: "Mapping[str, Any] | str | np.ndarray") -> "VMoEConfig":
        """Read a dict, a JSON text or a 0-d array of text; unknown names are refused with InputError."""
        tree = dict(_mapping(values))
        if "ensemble" in str(tree.get("name", "")).lower():
            raise InputError("the config is of an ensemble of V-MoEs, which is not built here: give a plain V-MoE's.")
        tree["encoder"] = EncoderConfig.from_dict(tree.get("encoder") or {})
        for name in ("patch_size", "image_size"):
            if tree.get(name) is not None:
                tree[name] = _pair(tree[name])
        return read(cls, tree, "config", {"name", "model_type", "architectures", "deterministic", "dtype"})

    def to_dict(self) -> dict[str, Any]:
        """The same names and nesting as `from_dict` reads, ready for JSON."""
        return {"model_type": MODEL_TYPE, **json.loads(json.dumps(asdict(self)))}


def _mapping(values: "Mapping[str, Any] | str | bytes | np.ndarray") -> Mapping[str, Any]:
    if isinstance(values, np.ndarray):
        values = values.item()
    try:
        tree = json.loads(values) if isinstance(values, str | bytes) else values
    except ValueError as error:
        raise InputError(f"the config is not JSON ({error}): give a dict or a JSON object.") from error
    if not isinstance(tree, Mapping):
        raise InputError(f"the config is a {type(tree).__name__}: give a dict or a JSON object.")
    return tree


def _pair(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)
