"""Load: what other capacities would do, leaves of trees, training."""
