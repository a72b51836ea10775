"""Who is let in, what is served from memory, and how the server ends."""
