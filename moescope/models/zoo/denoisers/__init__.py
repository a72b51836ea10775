"""Denoisers of pictures."""
