"""Commands that record decisions, and prove that they are recorded."""
