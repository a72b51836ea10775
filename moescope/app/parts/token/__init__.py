"""Tokens: which sequence is looked at, and the route of one token."""
