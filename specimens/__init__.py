"""Makes the specimens moescope ships again: corpora, tokenizer, training, figures, labelled held-out text.

Nothing here is part of the wheel. `python -m specimens.mixtral` and `python -m specimens.switch` run from the
repository root; what they need is named by `specimens.sources` when it is missing.
"""
