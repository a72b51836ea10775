"""Everything moescope raises on purpose; each message is one sentence: asked, wrong, what exists, what to do.

MoescopeError
├── InputError          data, labels, options or a model's name that cannot be used
├── ModelError          the model cannot be traced
│   ├── NotMoEError     it has no router
│   ├── UnknownContract a router speaks a way that no contract knows
│   └── ProofFailed     what would be stored is not what the layer executed
├── StoreError          a store cannot be opened, read or written
└── AnalysisError       the store lacks what the question needs
"""


class MoescopeError(Exception):
    """Base class; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class InputError(MoescopeError):
    """The data, its labels, an option or a name cannot be used as asked."""

    exit_code = 2


class ModelError(MoescopeError):
    """The model cannot be loaded or traced."""


class NotMoEError(ModelError):
    """The model has no router."""


class UnknownContract(ModelError):
    """A router is there, but no contract knows how it speaks."""


class ProofFailed(ModelError):
    """The layer's output does not follow from what would be stored."""


class StoreError(MoescopeError):
    """The store cannot be opened, read or written as asked."""


class AnalysisError(MoescopeError):
    """The store lacks what this question needs."""
