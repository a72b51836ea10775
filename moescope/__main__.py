"""`python -m moescope`: the same as `moescope`."""

from .cli import main

main()
