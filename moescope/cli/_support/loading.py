"""Options of every command that loads a model: where it goes, in which form, and what may be loaded."""

from collections.abc import Callable
from typing import Any

import click

from .options import TEXT

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--device", default="auto", type=TEXT, show_default=True,
                 help="cpu, cuda, cuda:1; auto: a GPU if there is one, and spread where it does not fit."),
    click.option("--device-map", type=TEXT, help="auto, balanced, balanced_low_0, sequential, or a JSON file."),
    click.option("--max-memory", type=TEXT, help='What a model that is spread may take: "0=20GB,cpu=64GB".'),
    click.option("--dtype", default="auto", type=TEXT, show_default=True,
                 help="auto (the checkpoint's own), float32, bfloat16, float16."),
    click.option("--quantize", type=TEXT, help="Quantize on the way in: 8bit, 4bit, int8-torchao, fp8-torchao, int4-torchao."),
    click.option("--attn", type=TEXT, help="eager, sdpa, flash_attention_2, flex_attention; else the model's own choice."),
    click.option("--adapter", type=TEXT, help="The folder of an adapter (PEFT) to put on MODEL."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
    click.option("--allow-pickle", is_flag=True, help="Load weights that are pickled."),
    click.option("--allow-missing", is_flag=True, help="Load a checkpoint whose weights are not all there, or not all known."),
)  # fmt: skip
_NAMES = (
    *("device", "device_map", "max_memory", "dtype", "quantize", "attn", "adapter"),
    *("trust_remote_code", "allow_pickle", "allow_missing"),
)


def loads(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of loading."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def loading(options: dict[str, Any], quiet: bool = False) -> dict[str, Any]:
    """Take the options of loading out of a command's, as `load` takes them; what it says goes to standard error."""
    found = {name: options.pop(name) for name in _NAMES}
    return found | {"say": None if quiet else lambda text: click.echo(f"moescope: {text}", err=True)}
