"""A run as arrays: counts by document, tokens, decisions of whole sequences, matrices."""
