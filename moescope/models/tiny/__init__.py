"""Every routed family of the installed Transformers, made tiny: random weights, offline, forward-able in milliseconds.

* `names()`: all families, discovered from Transformers' own configurations
* `build("mixtral")`: a TinyModel, that is a model in eval mode, inputs for `model(**inputs)` and a remark
* `unknown()`: model types that look routed and are not among the names
"""

from .model_types import names, unknown
from .zoo import TinyModel, build

__all__ = ["TinyModel", "build", "names", "unknown"]
