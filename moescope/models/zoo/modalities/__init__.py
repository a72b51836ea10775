"""More than one kind of input: pictures and texts, observations and actions."""
