"""Does it hold when a store is large?

`dashboard` (a visitor's session in a browser), `large` (many gigabytes), `soak` (many decisions through the real tracer, two
readers beside it).
"""
