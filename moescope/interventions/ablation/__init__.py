"""From a choice of experts to their effects in a store: plan, sweep, scores, effects beside controls."""
