"""`python -m moescope.cli`."""

from . import main

main()
