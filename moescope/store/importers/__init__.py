"""Decisions that other programs recorded, read into a store."""
