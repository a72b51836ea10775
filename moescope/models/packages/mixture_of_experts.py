"""mixture-of-experts: one gate, and two levels of gates."""

from ._stack import Ready, stacked


def one_level() -> Ready:
    """Two layers of four experts."""
    from mixture_of_experts import MoE

    return stacked(lambda: MoE(16, num_experts=4, capacity_factor_eval=1.0))


def two_levels() -> Ready:
    """Two layers of three groups of four experts."""
    from mixture_of_experts import HeirarchicalMoE

    return stacked(
        lambda: HeirarchicalMoE(16, num_experts=(3, 4), second_policy_eval="all", capacity_factor_eval=1.0), places=15
    )


READY = {"one_level": lambda _, __: one_level(), "two_levels": lambda _, __: two_levels()}
