"""Listening to a model: its open calls, and the records of each forward."""
