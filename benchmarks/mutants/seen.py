"""Which functions of a tree were called, in this process. Standard library only: it also stands in as `sitecustomize` of
programs that a test starts, and then leaves what it saw in a folder, under the name of the test."""

import atexit
import json
import os
import sys
import threading
from typing import Any

FOLDER = "MOESCOPE_MUTANTS_SEEN"
TREE = "MOESCOPE_MUTANTS_TREE"


class Seen:
    """(path in the tree, qualified name) of every function called since `start`."""

    def __init__(self, tree: str) -> None:
        self._inside = f"{tree}/moescope/"
        self._cut = len(tree) + 1
        self.found: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Look at every call of every thread from here on."""
        threading.settrace(self._look)
        sys.settrace(self._look)

    def _look(self, frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(self._inside):
            return
        self.found.add((code.co_filename[self._cut :], code.co_qualname))
        if "function" in code.co_freevars:  # a wrapper: what it wraps may be machine code, which nobody can watch
            wrapped = getattr(frame.f_locals.get("function"), "__code__", None)
            if wrapped is not None:
                self.found.add((wrapped.co_filename[self._cut :], wrapped.co_qualname))


def _of_a_program() -> None:
    seen = Seen(os.environ[TREE])
    name = os.path.join(os.environ[FOLDER], f"{os.getpid()}.json")

    def leave() -> None:
        sys.settrace(None)
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with open(name, "w") as file:
            json.dump({"test": test, "functions": sorted(seen.found)}, file)

    atexit.register(leave)
    seen.start()


if __name__ == "sitecustomize" and FOLDER in os.environ:
    _of_a_program()
