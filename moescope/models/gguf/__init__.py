"""GGUF files, run by llama.cpp (`pip install moescope[gguf]`): header, what is listened to, the module that a Tracer takes."""

from .header import is_gguf
from .load import load_gguf

__all__ = ["is_gguf", "load_gguf"]
