"""What commands say, without progress bars of libraries."""

import re


def without_bars(said: str) -> str:
    """Without the progress bars of compressed-tensors, which Transformers 5.18 has it draw."""
    return re.sub(r"(?:\r[^\r\n]*\|[^\r\n]*)+\n", "", said)
