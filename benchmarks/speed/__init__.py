"""What does it cost?

`python -m benchmarks.speed` (`make bench`): decisions made durable (`ingest`), tracing beside a forward pass (`overhead`),
answers (`queries`). By themselves: `steps` (where a decision's time goes), `analyses` (one after the other on a large store),
`ablation_sweep` (what is not computed again).
"""
