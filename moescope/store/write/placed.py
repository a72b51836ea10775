"""Rows with the keys that they have in their store, where these were known when the run began.

A run plans its keys behind what its store has then (`keys` in its head): if no other run comes between, its shards need
no moving when it is finished, and one scan reads them together with those of other runs. In memory, and in `next` of a
shard's progress, keys count from 0 within the run all the same.
"""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import StoreError
from .unfinished_run import KEYS

_MOST = 1 << 32  # keys of a kind
SPACE = {"next_router": "router", "parent": "token"}


def placed(rows: pa.Table, keys: Mapping[str, int], run: bool) -> pa.Table:
    """`rows` with `keys` added, where there are any; `run`: with a column that says of which run they are."""
    if not keys:
        return rows
    for place, name in enumerate(rows.column_names):
        if name in KEYS and (by := keys.get(SPACE.get(name, name), 0)):
            moved = pc.add(rows.column(place).cast(pa.uint32()), pa.scalar(by, pa.uint32()))
            rows = rows.set_column(place, name, moved)
    if run:
        rows = rows.add_column(0, "run", pa.repeat(pa.scalar(keys["run"], pa.uint32()), len(rows)))
    return rows


def check_room(store: object, keys: Mapping[str, int], following: Mapping[str, int]) -> None:
    """StoreError if keys before `following`, which count from 0, have no place behind `keys`."""
    for name, count in following.items():
        if keys and keys[name] + count > _MOST:
            raise StoreError(f"{store} has no room for so many: its {name}s end at {_MOST}; begin another store")


def shift(base: Mapping[str, int], keys: Mapping[str, int]) -> dict[str, int]:
    """What is still to be added to the keys in shards that were placed by `keys`, so that they begin at `base`; of run and
    model what they are."""
    return {name: by - (keys.get(name, 0) if name != "run" else 0) for name, by in base.items()}
