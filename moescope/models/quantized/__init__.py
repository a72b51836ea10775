"""Quantized weights: ways to make them, those that a checkpoint brings, and what a model then has."""
