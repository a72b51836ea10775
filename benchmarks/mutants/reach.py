"""Which tests run which function: recorded once, file by file, and asked for every mutant."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .copies import ROOT, Copy
from .mutant import Mutant, source

Function = tuple[str, str]


@dataclass(frozen=True)
class Test:
    """A test that passed on the tree as it is."""

    name: str
    file: str
    seconds: float
    functions: frozenset[Function]


class Reach:
    """Tests by what they call."""

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self.tests = [
            Test(name, file, about["seconds"], frozenset(map(tuple, about["functions"])))
            for file, tests in sorted(records.items())
            if file
            for name, about in tests.items()
            if about["passed"] and about.get("ran")
        ]
        self._text = {file: (ROOT / file).read_text(encoding="utf-8") for file in records if file and (ROOT / file).exists()}

    def tests_of(self, mutant: Mutant) -> list[Test]:
        """Tests whose file names what the mutant changes (a view, a constant), then those that call it, then others of their
        files; each file's tests in turn."""
        functions, naming = self._touched(mutant)
        named = [t for t in self.tests if t.file in naming]
        calling = [t for t in self.tests if t.file not in naming and t.functions & functions]
        files = {t.file for t in calling}
        rest = [t for t in self.tests if t.file in files and not t.functions & functions]
        return [*_in_turn(named), *_in_turn(calling), *_in_turn(rest)]

    def _touched(self, mutant: Mutant) -> tuple[set[Function], set[str]]:
        """Functions that show a mutant, and files of tests that name it."""
        if mutant.path.endswith(".sql"):
            words = self._views(mutant)
            return self._naming(words), {f for f, text in self._text.items() if _names(text, words)}
        if mutant.scope.endswith("*"):
            words = self._constants(mutant)
            return self._naming(words), {f for f, text in self._text.items() if _names(text, words)}
        own = (mutant.path, mutant.scope)
        if any(own in t.functions for t in self.tests):
            return {own}, set()
        return {f for t in self.tests for f in t.functions if f[0] == mutant.path}, set()

    def _naming(self, words: set[str]) -> set[Function]:
        return {function for function, text in self._bodies if _names(text, words)}

    def _constants(self, mutant: Mutant) -> set[str]:
        """A constant's names, and those of constants that are made from it."""
        return self._made_from(set(mutant.scope.removesuffix("*").split(",")))

    def _views(self, mutant: Mutant) -> set[str]:
        """A view or table, the views that are made from it, and constants whose SQL asks them."""
        words = {mutant.scope}
        made = re.findall(r"create view (\w+) as(.*?);", source(ROOT, mutant.path), re.S)
        for _ in made:
            words |= {name for name, text in made if _names(text, words)}
        return self._made_from(words)

    def _made_from(self, words: set[str]) -> set[str]:
        for names, text in self._assigned:
            words |= names if _names(text, words) else set()
        return words

    @cached_property
    def _assigned(self) -> list[tuple[set[str], str]]:
        """Names and text of every statement of a module that binds some."""
        found = []
        for path in _python_files():
            for node in ast.parse(source(ROOT, path)).body:
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
                    found.append((names, ast.unparse(node)))
        return found

    @cached_property
    def _bodies(self) -> list[tuple[Function, str]]:
        """Every function of the tree with its text."""
        return [(f, text) for path in _python_files() for f, text in _functions(path)]


def _in_turn(tests: list[Test]) -> list[Test]:
    """The fastest of every file, then the second of every file, and so on."""
    turn: Counter[str] = Counter()
    found = []
    for test in sorted(tests, key=lambda t: t.seconds):
        found.append((turn[test.file], test.seconds, test.name, test))
        turn[test.file] += 1
    return [test for *_, test in sorted(found, key=lambda entry: entry[:3])]


def _python_files() -> list[str]:
    return [str(p.relative_to(ROOT)) for p in sorted((ROOT / "moescope").rglob("*.py"))]


def _functions(path: str) -> Iterator[tuple[Function, str]]:
    text = source(ROOT, path)

    def inside(node: ast.AST, prefix: str) -> Iterator[tuple[Function, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, ast.FunctionDef):
                    yield (path, name), ast.get_source_segment(text, child) or ""
                yield from inside(child, name + (".<locals>." if isinstance(child, ast.FunctionDef) else "."))
            else:
                yield from inside(child, prefix)

    return inside(ast.parse(text), "")


def _names(text: str, words: Iterable[str]) -> bool:
    return bool(re.search(r"\b(" + "|".join(map(re.escape, words)) + r")\b", text))


def test_files(pattern: str) -> list[str]:
    """Files of tests, wherever they lie below tests/."""
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob(pattern))


def watching(copy: Copy) -> Path:
    """An empty folder where programs that tests start leave what they called; makes them do so."""
    import os
    import shutil

    folder = copy.folder / "programs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    site = copy.folder / "site"
    site.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("seen.py"), site / "sitecustomize.py")
    os.environ.update(MOESCOPE_MUTANTS_SEEN=str(folder), MOESCOPE_MUTANTS_TREE=str(copy.tree))
    return folder


def load(path: Path) -> dict[str, dict[str, Any]]:
    """What was recorded: {file: {test: about}}, and under "" when each file was changed that was recorded."""
    return json.loads(path.read_text()) if path.exists() else {}
