"""What the shipped models have learned.

Loss, load, what routers tell apart (`measure`, `information`, `vmoe`), read by `heldout` and `readings`.
"""
