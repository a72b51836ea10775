"""Which token of which sequence every row of a forward is."""
