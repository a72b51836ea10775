"""Whose expert counts are right (`right`), and what does each tool cost (`cost`)?

How each is asked: `tools`; figures: peers.json.
"""
