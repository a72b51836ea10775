"""Experts that nothing chooses: a stream, a modality, a place, a stage or a timestep says which one runs.

Blocks that say `kind = "static"` and decide by their method `route` (VLMo and ConFiner of the zoo, whose experts are whole
models); torchscale's MultiwayNetwork, where places before `split_position` go through A and the others through B; and norms
that modulate text and video apart, each with a gate vector of its own (CogVideoX).
"""

from collections.abc import Iterable

from torch import nn

from ..routers.base import Site
from ..routers.reading.stream_norm import StreamNorm, modulates_streams
from ..routers.reading.two_ways import TwoWays, goes_two_ways
from .gate_pair import ByMethod, experts_of


class StaticStreams(ByMethod):
    """The block's own `route`; or one of the two forms of packages."""

    name = "static_streams"
    general = False

    def find(self, name: str, module: nn.Module) -> Iterable[Site]:
        """A site for each block of one of the three forms."""
        if getattr(module, "kind", None) == "static" and getattr(module, "decides_by", None) == "route":
            experts = experts_of(module)
            if experts is not None:
                yield self.site(name, module, None, experts, self)
        elif goes_two_ways(module):
            yield two_ways.site(name, module)
        elif modulates_streams(module):
            yield stream_norm.site(name, module)


two_ways, stream_norm = TwoWays(), StreamNorm()
contract = StaticStreams()
