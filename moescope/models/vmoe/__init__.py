"""V-MoE in PyTorch, to the letter of the authors' code (google-research/vmoe at 942a78b; arXiv:2106.05974)."""

from .checkpoints.flax import from_flax
from .config import VMoEConfig
from .model import VMoE, VMoEOutput
from .routing import ExpertChoice, SoftSlots, TokenChoice

__all__ = ["ExpertChoice", "SoftSlots", "TokenChoice", "VMoE", "VMoEConfig", "VMoEOutput", "from_flax"]
