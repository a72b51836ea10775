"""A model that answers while one looks: prompts in, tokens and their routing out as they come, by a local endpoint."""
