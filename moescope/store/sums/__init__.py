"""Sums that are kept beside the rows: what they are, and how a shard's rows add to them."""
