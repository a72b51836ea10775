"""Where a section runs, how long it may, and what it says: rows, one JSON object a line."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Here:
    """The device and the seconds that are left. `small`: tiny sizes, to rehearse; `few`: as few cases as show that all runs."""

    device: torch.device
    small: bool
    ends: float  # time.monotonic()
    few: bool = False

    def left(self) -> float:
        """Seconds until this section is stopped."""
        return self.ends - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to be asked."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Row:
    """One line of the table. `good`: of a check, whether it passed; None for a figure."""

    what: str
    value: float | str
    unit: str = ""
    spread: tuple[float, float] | None = None
    good: bool | None = None

    def line(self) -> str:
        """As the table shows it."""
        number = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        spread = f"  [{self.spread[0]:.4g} … {self.spread[1]:.4g}]" if self.spread else ""
        mark = {None: " ", True: "+", False: "!"}[self.good]
        return f"{mark} {self.what:78} {number} {self.unit}{spread}".rstrip()


Section = Callable[[Here], Iterator[Row]]


def oracles() -> None:
    """Let the independent recounts of the tests be imported."""
    for folder in ("oracles", "common"):
        if str(path := ROOT / "tests" / folder) not in sys.path:
            sys.path.insert(0, str(path))


def guarded(what: str, check: Callable[[], str]) -> Row:
    """A check as a row: `check` gives what it found, or raises what is wrong."""
    try:
        return Row(what, check(), good=True)
    except Exception as error:
        return Row(what, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", good=False)


def write(row: Row, file: Path) -> None:
    """Keep a row, whatever comes after."""
    print(row.line(), flush=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row.__dict__) + "\n")


def read(file: Path) -> list[Row]:
    """What a section said before it ended, however it did."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [Row(**{**one, "spread": tuple(one["spread"]) if one["spread"] else None}) for one in found]
