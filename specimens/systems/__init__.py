"""Trains the small models of systems that ship with weights: `python -m specimens.systems.NAME`, a file each."""
