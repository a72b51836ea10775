"""Commands that ask a store, or the model behind it."""
