"""Tiny models of other packages whose routing systems are proved: one file per package, random weights, nothing downloaded.

Each file has READY: {what: function of an empty folder and an ExitStack (for what the model needs while it lives)} that gives
the model in evaluation mode and the inputs of one forward. ImportError where the package is not installed.
"""
