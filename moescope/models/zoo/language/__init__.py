"""Language models: dense mixtures, trees, selectors, capacity, depth."""
