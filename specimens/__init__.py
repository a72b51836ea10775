"""Makes the specimens moescope ships again: corpora, tokenizer, training, figures, labelled held-out text.

Nothing here is part of the wheel. `python -m specimens.training.mixtral` and `python -m specimens.training.switch` run from the
repository root; what they need is named by `specimens.corpora.sources` when it is missing.
"""
