"""The live table of routing systems: each with the packages and small models that prove it, proved here and now.

A system's row names its sources: `transformers:` a family of Transformers, `own:` a small model of ours (models/zoo), `vmoe:` a
router of our V-MoE, else a package and what is built of it (models/packages).
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from ..contracts import find
from ..errors import InputError, MoescopeError
from ..models import tiny, zoo
from .families import one_thread
from .inputs import example_inputs
from .prove import prove


@dataclass(frozen=True)
class System:
    """A routing system: its rule in some words, and what proves it. No sources: `why`."""

    name: str
    rule: str
    sources: tuple[str, ...]
    why: str = ""


@dataclass
class Row:
    """What became of one system."""

    name: str
    rule: str
    contracts: list[str] = field(default_factory=list)
    proved_by: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # packages that are not installed here
    nothing: bool = False  # there is nothing that could be proved, for this reason
    proved: bool = False
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Something was there to be proved, and was not."""
        return not self.proved and bool(self.reason) and not self.missing and not self.nothing

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


_CLOSED = "closed: nothing of it can be run"
_HRM = "nothing to prove: `--measure dimensionality` of its modules by cycle, equal to a recomputation by hand (hrm_text)"
SYSTEMS = (
    System("Dense mixture (1991)", "softmax of all experts", ("own:moe1991", "neural-trees:dense")),
    System("Hierarchical mixture (Jordan–Jacobs)", "tree of gates",
           ("own:hierarchical", "neural-trees:tree", "mixture-of-experts:two_levels")),
    System("Shazeer 2017", "noisy top-k", ("own:shazeer",)),
    System("GShard", "top-2, second by chance, capacity", ("transformers:nllb-moe", "mixture-of-experts:one_level")),
    System("Switch Transformer", "top-1, capacity, drops", ("transformers:switch_transformers",)),
    System("GLaM", "GShard's rule in every other layer", ("own:glam",)),
    System("ST-MoE", "top-n, threshold, capacity", ("st-moe-pytorch:layer",)),
    System("V-MoE", "softmax before top-k, capacity, batch priority", ("vmoe:token_choice",)),
    System("LIMoE", "top-1, capacity, batch priority, two modalities in one tower", ("own:limoe",)),
    System("Expert choice", "experts choose tokens", ("vmoe:expert_choice",)),
    System("Soft MoE", "soft slots", ("vmoe:soft",)),
    System("DSelect-k", "k selectors by smooth steps", ("own:dselect_k",)),
    System("Mixtral", "top-2, renormalized", ("transformers:mixtral",)),
    System("BTX, mergekit's mixtures", "dense models put together in Mixtral's layout", ("transformers:mixtral",)),
    System("ModuleFormer", "top-k of attention and feed-forward experts, JetMoE's rule", ("transformers:jetmoe",)),
    System("DeepSeek-V3", "sigmoid, bias, groups, shared expert", ("transformers:deepseek_v3",)),
    System("Llama 4", "sigmoid weight on the input, shared expert", ("transformers:llama4_text",)),
    System("DeepSpeed-MoE", "top-1 with random token selection, top-2, top-k",
           ("deepspeed:top1", "deepspeed:top2", "deepspeed:top3")),
    System("PR-MoE", "pyramid of experts, residual coefficient", ("deepspeed:residual",)),
    System("Megatron-Core", "softmax, sigmoid, groups, dropping; sequence-first rows", ("own:megatron",)),
    System("DiT-MoE", "top-2 and two shared, per patch and timestep", ("own:dit_moe",)),
    System("HiDream", "DiT-MoE's gate in two kinds of blocks", ("diffusers:hidream",)),
    System("Diff-MoE", "experts modulated by the timestep", ("own:diff_moe",)),
    System("Switch-DiT", "routing of whole images by timestep", ("own:switch_dit",)),
    System("EC-DiT", "experts choose patches of an image", ("own:ec_dit",)),
    System("DiffMoE", "experts choose from the whole batch; a threshold at inference", ("own:diffmoe",)),
    System("Expert Race", "batch, patches and experts in one top-k", ("own:race",)),
    System("NucleusMoE", "experts choose patches by token and timestep", ("diffusers:nucleus",)),
    System("CogVideoX", "text and video by streams of their own", ("diffusers:cogvideox",)),
    System("Wan 2.2", "one of two denoisers by timestep", ("diffusers:wan",)),
    System("VLMo", "feed-forward by modality", ("own:vlmo",)),
    System("ConFiner", "whole models by stage and step", ("own:confiner",)),
    System("MoEE", "experts of emotions, local and global gate", ("own:moee",)),
    System("Uni-MoE", "dynamic top-p, null and fixed experts", ("own:uni_moe",)),
    System("VDD", "mixture of policies, one is drawn", ("own:vdd",)),
    System("Mixture-of-Depths", "a token runs the block or passes it by", ("own:mod", "CoLT5-attention:feed_forward")),
    System("Mixture-of-Recursions", "how often a token runs the block", ("own:mor",)),
    System("EvoMoE", "dense to sparse, annealed", ("own:evomoe",)),
    System("MoLE", "whole LoRAs weighed layer by layer", ("own:mole",)),
    System("LoRAMoE", "LoRAs weighed at every projection", ("own:lora_moe",)),
    System("MixLoRA", "top-k of LoRAs on a shared feed-forward", ("mixlora:model",)),
    System("MoELoRA", "top-k of LoRAs (Luo 2024); by task (Liu 2023)", ("own:moe_lora",)),
    System("MoV", "soft mixture of (IA)³ vectors", ("own:mov",)),
    System("MoCLE", "LoRA by cluster, and a universal one", ("own:mocle",)),
    System("Omni-SMoLA", "soft mixtures of many LoRAs by modality", ("own:omni_smola",)),
    System("AdaMix", "an adapter by chance, their mean at inference", ("own:adamix",)),
    System("X-LoRA", "LoRAs weighed by a pass of the model before", ("peft:xlora",)),
    System("Arrow, Poly, Lily", "LoRAs by prototypes, by task, by the batch", ("peft:arrow", "peft:poly", "peft:lily")),
    System("HRM", "no routing: dimensionality of recursive states", (), _HRM),
    System("GPT-4, Gemini, PaLM", "said to be mixtures, or not said", (), _CLOSED),
)  # fmt: skip


def systems(names: Iterable[str] = ()) -> Iterator[Row]:
    """A row for each system, or for those whose name holds one of `names`. InputError for a name that none holds."""
    asked = [name.lower() for name in names]
    for name in asked:
        if not any(name in system.name.lower() for system in SYSTEMS):
            raise InputError(f"no system is called {name!r}; there are {', '.join(s.name for s in SYSTEMS)}")
    for system in SYSTEMS:
        if not asked or any(name in system.name.lower() for name in asked):
            yield _row(system)


def _row(system: System) -> Row:
    row = Row(system.name, system.rule, reason=system.why, nothing=not system.sources)
    for source in system.sources:
        kind, _, name = source.partition(":")
        try:
            with one_thread(), TemporaryDirectory() as folder, ExitStack() as stack:
                model, inputs = _built(kind, name, Path(folder), stack)
                sites = find(model)
                prove(model, sites, inputs)
        except ImportError as error:
            row.missing.append(kind)
            row.reason = row.reason or f"{kind} is not installed here ({error})"
            continue
        except MoescopeError as error:
            row.reason = f"{source}: {error}"
            return row
        row.contracts += [c for c in dict.fromkeys(s.contract.name for s in sites) if c not in row.contracts]
        row.proved_by += [said for said in [_said(kind, name)] if said not in row.proved_by]
    row.proved = bool(row.proved_by)
    return row


def _said(kind: str, name: str) -> str:
    told = {"own": f"own small model `{name}`", "vmoe": "own V-MoE", "transformers": f"Transformers ({name})"}
    return told.get(kind, kind)


def _built(kind: str, name: str, folder: Path, stack: ExitStack) -> tuple[nn.Module, dict[str, Any]]:
    """A tiny model of a source with inputs of one forward. ImportError if its package is not there."""
    if kind == "transformers":
        built = tiny.build(name)
        return built.model, dict(built.inputs)
    if kind == "own":
        model = zoo.build(name)
        return model, zoo.system(name).example(model)
    if kind == "vmoe":
        from ..models.vmoe.small import small

        model = small(name)
        return model, example_inputs(model)
    module = import_module(f"moescope.models.packages.{kind.lower().replace('-', '_')}")
    found: tuple[nn.Module, dict[str, Any]] = module.READY[name](folder, stack)
    return found
