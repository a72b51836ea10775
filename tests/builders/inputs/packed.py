"""Documents packed in one row, and every way in which their bounds are told."""

from typing import Any

import numpy as np
import torch

DOCUMENTS = [[11, 12, 13], [21], [31, 32, 33, 34], [41, 42]]


def told(name: str) -> dict[str, Any]:
    """One row of all documents, and their bounds."""
    lengths = [len(text) for text in DOCUMENTS]
    ids = torch.tensor([[i for text in DOCUMENTS for i in text]])
    number = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    blocks = (number[:, None] == number) & torch.ones(10, 10, dtype=torch.bool).tril()
    low = torch.finfo(torch.float32).min
    forms: dict[str, Any] = {
        "positions": lambda: {"position_ids": positions},
        "positions and a mask": lambda: {"position_ids": positions, "attention_mask": torch.ones_like(ids)},
        "positions from 2": lambda: {"position_ids": positions + 2},
        "positions of one axis": lambda: {"position_ids": positions[0][None]},
        "cu_seq_lens": lambda: {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 4, "max_length_k": 4},
        "seq_idx": lambda: {"seq_idx": number[None].int()},
        "blocks": lambda: {"attention_mask": blocks[None, None]},
        "additive blocks": lambda: {"attention_mask": torch.where(blocks, 0.0, low)[None, None]},
        "numbered mask": lambda: {"attention_mask": (number + 1)[None]},
    }
    return {"input_ids": ids, **forms[name]()}


FORMS = [
    "positions", "positions and a mask", "positions from 2", "positions of one axis", "cu_seq_lens", "seq_idx", "blocks",
    "additive blocks", "numbered mask",
]  # fmt: skip
