"""What the user asked of a format."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ...errors import InputError
from .files import shown
from .report import Report
from .types import Example

FLAGS = ("text_column", "label_columns", "split", "sentences", "chat", "prompt")


@dataclass(frozen=True)
class Options:
    """`source` is set for a file inside a folder: its path relative to that folder."""

    text_column: str | None = None
    label_columns: tuple[str, ...] | None = None
    split: str | None = None
    limit: int | None = None
    sentences: bool = False
    chat: bool = False  # conversations are asked for
    prompt: str | None = None  # the text of what has none: of pictures, sound and video
    media: bool = True  # columns image, video, audio are media
    folder: Path | None = None  # where paths in the data begin
    file_name: bool = False  # a column of that name is the path of a medium, as in the metadata of a folder
    source: str | None = None
    stream: bool = False  # nothing is held whole, so files may be larger than memory
    memory: bool = False  # what is read lies in memory: options are said in Python
    pad_id: int | None = None  # the id that fills up rows of ids
    enough: Callable[[Example], bool] | None = None  # asked after each example: whether no more are needed
    report: Report = field(default_factory=Report)

    def name(self, path: Path) -> str:
        """What to call this file in examples and messages."""
        return shown(self.source or path.name or path.resolve().name)

    def flag(self, name: str, value: str | None = None) -> str:
        """How the user says an option: `--text-column`, or in Python `reading={"text_column": ...}`."""
        if self.memory:
            return f'reading={{"{name}": {value!r}}}' if value else f'reading={{"{name}": ...}}'
        return f"{as_flag(name)} {value}" if value else as_flag(name)


def refuse_foreign(format: ModuleType, options: Options, path: Path) -> None:
    """Raise InputError for an option that this format would ignore."""
    for flag in FLAGS:
        if getattr(options, flag) not in (None, False) and flag not in format.TAKES:
            known = ", ".join(map(as_flag, sorted(format.TAKES))) or "none"
            raise InputError(f"{options.name(path)} takes no {as_flag(flag)} (options that it takes: {known}).")


def as_flag(name: str) -> str:
    """`text_column` as it is written on the command line."""
    return "--" + name.replace("_", "-").removesuffix("s" if name == "label_columns" else "")
