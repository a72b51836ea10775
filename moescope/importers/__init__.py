"""Decisions that other programs recorded, read into a store: one file per program or format."""
