"""moescope inside a serving engine: what its routers decide while it serves, straight into a store.

`buffers.py` holds what routers return, in memory that does not move; `step.py` is one forward of an engine's batch; `ledger.py`
knows requests and which token of which request every row is; `recomputed.py` makes decisions again from logits; `recorder.py`
brings finished requests to a store on a thread of its own. None of them knows an engine: a folder for each engine does, and is
all that may import it.
"""
