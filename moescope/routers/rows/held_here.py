"""Experts of which other processes have some: what those make cannot be shown here."""

from ...errors import ProofFailed
from ..base import Site


def check_held(site: Site, held: int, advice: str) -> None:
    """ProofFailed where this process has fewer than all of a router's experts; `advice`: how to have them all."""
    if held < site.n_experts:
        raise ProofFailed(
            f"{site.name} has {held} of its {site.n_experts} experts in this process, so that what the others make cannot be "
            f"shown; {advice}"
        )
