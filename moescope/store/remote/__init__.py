"""Stores on other file systems: object stores and data sets of the Hugging Face hub, by their addresses."""
