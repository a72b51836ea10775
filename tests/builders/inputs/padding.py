"""Texts of several lengths in one padded batch."""

import torch
from torch import Tensor

LENGTHS = (7, 4, 1)
PLACES = 7


def padded(side: str, pad: int = 0) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Ids (3, 7) without special ones, their mask, and the texts."""
    random = torch.Generator().manual_seed(3)
    rows = [torch.randint(5, 60, (n,), generator=random).tolist() for n in LENGTHS]
    ids, mask = torch.full((3, PLACES), pad), torch.zeros(3, PLACES, dtype=torch.long)
    for row, text in enumerate(rows):
        here = slice(PLACES - len(text), PLACES) if side == "left" else slice(0, len(text))
        ids[row, here], mask[row, here] = torch.tensor(text), 1
    if side == "middle":  # a hole: the user masks a place between others
        ids[0, 3], mask[0, 3], rows[0] = pad, 0, rows[0][:3] + rows[0][4:]
    return ids, mask, rows
