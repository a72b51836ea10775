"""Commands that keep a store: what is in it, whether it is sound, what is left of it."""
