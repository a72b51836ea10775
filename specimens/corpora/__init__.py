"""What is trained on.

Installed packages to documents (`sources`, `roff`), what is held out (`corpus`), rows of ids (`tokens`, `spans`), images
(`fashion`).
"""
