"""Copies of the tree to change, so that the checkout never is: build/mutants/copy-<n>/tree."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "mutants"


@dataclass(frozen=True)
class Copy:
    """A copy of what git knows or would add, beside whatever the checkout has beside it (`../shared`)."""

    folder: Path

    @property
    def tree(self) -> Path:
        """Where it stands."""
        return self.folder / "tree"

    def put(self, path: str, text: str) -> None:
        """Write a file's text, and give it a time of its own."""
        (self.tree / path).write_bytes(text.encode())

    def restore(self, path: str) -> None:
        """The checkout's file again, with its own time (compiled files go by it)."""
        shutil.copy2(ROOT / path, self.tree / path)


def copy(number: int) -> Copy:
    """A fresh copy; what was compiled for an earlier one in the same place stays, and goes by the files' times."""
    made = Copy(BUILD / f"copy-{number}")
    shutil.rmtree(made.tree, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    for path in filter(None, listed.decode().split("\0")):
        if (ROOT / path).is_file():
            (made.tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, made.tree / path)
    for name, link in ((ROOT.parent / "shared", made.folder / "shared"), (ROOT / ".venv", made.tree / ".venv")):
        if name.exists() and not link.is_symlink():
            os.symlink(name, link)
    return made
