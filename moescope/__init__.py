"""moescope: see what mixture-of-experts models do with their routers."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from . import show
    from .store import Store
    from .store import open_store as open
    from .tracer import Tracer, trace
    from .tracer.callback import RoutingCallback
    from .tracer.locate import locate

_HOMES = {
    "open": ("store", "open_store"),
    "Store": ("store", "Store"),
    "Tracer": ("tracer", "Tracer"),
    "trace": ("tracer", "trace"),
    "locate": ("tracer.locate", "locate"),
    "RoutingCallback": ("tracer.callback", "RoutingCallback"),
}
__all__ = ["RoutingCallback", "Store", "Tracer", "__version__", "locate", "open", "show", "trace"]


def __getattr__(name: str) -> Any:
    """Load what is asked for only then: reading a store needs no torch. `import_<format>` is an importer of that format."""
    from importlib import import_module

    if name.startswith("import_"):
        return import_module("moescope.importers._core.door").named(name)
    if name == "show":
        return import_module("moescope.show")
    if name not in _HOMES:
        raise AttributeError(f"module 'moescope' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"moescope.{module}"), attribute)
