"""Conversations as a model reads them: the tokenizer's own template, and whose text every character of it is.

Roles are not looked for in the rendered text. The template runs on texts that carry who said each of their characters
(marks.py, values.py) in an environment that keeps this through all that templates do (environment.py): trimming, splitting,
repeating, dropping, folding a system message into the user's turn, JSON. What it gives must be what the tokenizer itself
renders, character by character; and where a template does something after which nobody could say whose a character is, it is
refused.
"""

from .following import Following, following
from .render import Rendered, render, role_of
from .tokens import Tokens, labels_at, tokens

__all__ = ["Following", "Rendered", "Tokens", "following", "labels_at", "render", "role_of", "tokens"]
