"""V-MoE in PyTorch, to the letter of the authors' code (google-research/vmoe at 942a78b; arXiv:2106.05974)."""

from moescope.models.vmoe.config import VMoEConfig
from moescope.models.vmoe.flax import from_flax
from moescope.models.vmoe.model import VMoE, VMoEOutput
from moescope.models.vmoe.routing import ExpertChoice, SoftSlots, TokenChoice

__all__ = ["ExpertChoice", "SoftSlots", "TokenChoice", "VMoE", "VMoEConfig", "VMoEOutput", "from_flax"]
