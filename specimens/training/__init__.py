"""How each shipped model is trained.

`mixtral`, `switch` (with its lopsided twin), `vmoe`; what they share: balancing, learning rate, saving.
"""
