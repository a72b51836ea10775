"""One small wrong change of one file."""

import difflib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """`text[start:end]` of the file becomes `new`; `scope` is the function (or view, table, constant) that it stands in."""

    path: str  # relative to the tree
    start: int
    end: int
    new: str
    rule: str
    scope: str

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.start] + self.new + text[self.end :]

    def diff(self, text: str) -> str:
        """As a unified diff."""
        now = self.applied(text)
        lines = difflib.unified_diff(
            text.splitlines(), now.splitlines(), self.path, f"{self.path} ({self.rule})", "", "", 1, ""
        )
        return "\n".join(lines)

    def changed(self, text: str) -> tuple[str, str]:
        """The lines that change, before and after, stripped and joined: what a list of equivalent mutants goes by."""
        was, now = [], []
        for line in difflib.ndiff(text.splitlines(), self.applied(text).splitlines()):
            was += [line[2:].strip()] * line.startswith("- ")
            now += [line[2:].strip()] * line.startswith("+ ")
        return " ".join(was), " ".join(now)


def source(tree: Path, path: str) -> str:
    """The text of a file of the tree, line ends as they are."""
    return (tree / path).read_bytes().decode("utf-8")
