"""Options on how a model is run: the same for every command that loads one."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import TEXT

Command = TypeVar("Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--quantize", type=TEXT, help="Quantize on the way in: 8bit, 4bit, int8-torchao, fp8-torchao, int4-torchao."),
    click.option("--attn", type=TEXT, help="eager, sdpa, flash_attention_2, flex_attention; else the model's own choice."),
    click.option("--adapter", type=TEXT, help="The folder of an adapter (PEFT) to put on MODEL."),
)
NAMES = ("quantize", "attn", "adapter")


def model_options(command: Command) -> Command:
    """Add them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
