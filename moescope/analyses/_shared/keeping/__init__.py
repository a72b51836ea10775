"""Answers that were computed before, and what makes them stale."""
