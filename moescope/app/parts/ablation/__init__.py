"""Ablations: the form, the run, the effects."""
