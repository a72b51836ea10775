"""What windows are not: texts that were cut, labels that no token has, rows that no model could be given."""

from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from .windows import Window

_NAMED = 5


@dataclass
class Notes:
    """Counts over all windows so far; what a run keeps of them lets a later one go on counting."""

    skip_bad: bool = False
    cut: int = 0
    longest: int = 0
    unplaced: int = 0
    bare: int = 0
    bare_named: list[str] = field(default_factory=list)
    left_out: int = 0
    left_out_named: list[str] = field(default_factory=list)
    ungrouped: tuple[int, int] | None = None  # images that do not fill a group, and its size

    def add(self, window: Window) -> None:
        """One more window."""
        info = window.info
        self.cut += info.part == 1 and window.ids is not None
        self.longest = max(self.longest, len(window.ids or ()))
        self.unplaced += window.unplaced and info.part == 0
        for span in window.bare:
            self.bare += 1
            if len(self.bare_named) < _NAMED:
                where = f"{info.source}, row {info.row}"
                self.bare_named.append(f"{where}: {span.kind} {span.value!r} of characters {span.start} to {span.end}")

    def bad(self, error: InputError) -> None:
        """A row that the model cannot be given, if it is to be left out; else raise the error."""
        if not self.skip_bad:
            raise error
        self.left_out += 1
        if len(self.left_out_named) < _NAMED:
            self.left_out_named.append(str(error).rstrip("."))

    def as_dict(self) -> dict[str, Any]:
        """For the store."""
        named = {name: getattr(self, name) for name in ("cut", "longest", "unplaced", "bare", "left_out")}
        return named | {"bare_named": list(self.bare_named), "left_out_named": list(self.left_out_named)}

    def sentences(self) -> list[str]:
        """One for each thing that is to be said."""
        said = []
        if self.cut:
            said.append(f"{self.cut} texts are longer than {self.longest} tokens; each was traced in windows")
        if self.unplaced:
            said.append(
                f"the labels of words and spans of {self.unplaced} texts are left out: the tokenizer does not say where its "
                "tokens are in the text, and what they spell is not the text"
            )
        if self.bare:
            named = _listed(self.bare_named, self.bare)
            said.append(f"{self.bare} spans label no token, which all lie outside them or more in others: {named}")
        if self.left_out:
            said.append(f"{self.left_out} rows were left out as bad: {_listed(self.left_out_named, self.left_out)}")
        if self.ungrouped is not None:
            rest, group = self.ungrouped
            said.append(f"the last {rest} images do not fill a group of {group}, which is routed together; they were left out")
        return said


def _listed(named: list[str], count: int) -> str:
    return "; ".join(named) + (f"; and {count - len(named)} more" if count > len(named) else "")
