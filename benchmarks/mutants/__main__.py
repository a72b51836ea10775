"""`make mutants`: see the package's docstring."""

import argparse
import fnmatch
import json
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import copies, python_rules, sql_rules
from .mutant import Mutant, source
from .plugins import Chosen, Recorder
from .reach import Reach, Test, load, test_files, watching
from .trial import Trial, preload

HERE = Path(__file__).parent
MAP = copies.BUILD / "reach.json"
_STILLBORN = (
    "NameError",
    "UnboundLocalError",
    "ParserException",
    "BinderException",
    "CatalogException",
    "Parser Error",
    "Binder Error",
)
OUTCOMES = ("killed", "survived", "equivalent", "timed out", "not covered")


def main() -> None:
    """Make mutants, run their tests, print the table."""
    options = _options()
    copies.BUILD.mkdir(parents=True, exist_ok=True)
    preload()
    records = load(MAP)
    _record(records, options)
    mutants = list(_chosen(options))
    print(f"{len(mutants)} mutants", flush=True)
    results = _try(mutants, Reach(records), options)
    (copies.BUILD / "results.json").write_text(json.dumps(results, indent=1))
    _report(results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants")
    parser.add_argument("--only", default="*", help="subjects of subjects.toml (pattern)")
    parser.add_argument("--file", default="*", help="files by the end of their path (pattern)")
    parser.add_argument("--rule", default="*", help="rules (pattern)")
    parser.add_argument("--most", type=int, default=12, help="mutants of each file, 0: all (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, default=2, help="at once")
    parser.add_argument("--seconds", type=float, default=30, help="of tests for each mutant, fast ones first")
    parser.add_argument("--more", type=float, default=300, help="of tests for each that survives these")
    parser.add_argument("--tests", default="test_*.py", help="files of tests to record and run (pattern)")
    parser.add_argument(
        "--marks", default="not slow and not browser and not cuda", help="tests to record and run (as pytest -m)"
    )
    parser.add_argument("--record", action="store_true", help="record which tests call what again, also where it is known")
    return parser.parse_args()


def _record(records: dict[str, Any], options: argparse.Namespace) -> None:
    """Run every file of tests that is not recorded as it is now."""
    stamps = records.setdefault("", {})
    missing = [f for f in test_files(options.tests) if options.record or stamps.get(f) != (copies.ROOT / f).stat().st_mtime]
    if not missing:
        return
    print(f"recording {len(missing)} files of tests", flush=True)
    copy = copies.copy(0)
    for number, file in enumerate(missing):
        programs = watching(copy)
        plugin = partial(Recorder, tree=copy.tree, programs=programs)
        trial = Trial(copy, 1200, [file, "-m", options.marks], plugin).start()
        while not trial.done():
            time.sleep(0.05)
        records[file] = trial.answer.get("tests", {})
        stamps[file] = (copies.ROOT / file).stat().st_mtime
        MAP.write_text(json.dumps(records))
        print(f"{number + 1}/{len(missing)} {file}: {len(records[file])} tests, {trial.answer['seconds']:.0f} s", flush=True)


def subjects(only: str = "*") -> dict[str, list[str]]:
    """{subject: its files}. SystemExit for a pattern that finds none."""
    found: dict[str, list[str]] = {}
    every = [
        p.relative_to(copies.ROOT).as_posix()
        for suffix in ("py", "sql") for p in (copies.ROOT / "moescope").rglob(f"*.{suffix}")
    ]  # fmt: skip
    for subject, patterns in tomllib.loads((HERE / "subjects.toml").read_text())["subjects"].items():
        if not fnmatch.fnmatch(subject, only):
            continue
        for pattern in patterns:
            files = sorted(f for f in every if fnmatch.fnmatch("/" + f, "*/" + pattern))
            if not files:
                raise SystemExit(f"subjects.toml: {pattern!r} of {subject} finds no file; give its new name")
            found.setdefault(subject, []).extend(files)
    return found


def _chosen(options: argparse.Namespace) -> Iterator[Mutant]:
    files = dict.fromkeys(f for files in subjects(options.only).values() for f in files)
    for file in files:
        if not fnmatch.fnmatch("/" + file, "*/" + options.file) and options.file != "*":
            continue
        text = source(copies.ROOT, file)
        rules = sql_rules if file.endswith(".sql") else python_rules
        made = [m for m in rules.mutants(file, text) if fnmatch.fnmatch(m.rule, options.rule)]
        few = random.Random(f"{options.seed}:{Path(file).name}").sample(made, min(len(made), options.most or len(made)))
        yield from sorted(few, key=made.index)


def _try(mutants: list[Mutant], reach: Reach, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run them, a few at once; survivors of the fast tests against more."""
    free = [copies.copy(number) for number in range(options.jobs)]
    waiting = [(m, False) for m in reversed(mutants)]
    running: list[tuple[Mutant, bool, Trial]] = []
    results: list[dict[str, Any]] = []
    while waiting or running:
        while waiting and free:
            mutant, more = waiting.pop()
            tests = reach.tests_of(mutant)
            short = _within(tests, options.more if more else options.seconds)
            if not tests:
                results.append(_result(mutant, {"exit": "none"}, 0))
                continue
            running.append((mutant, more, _begin(mutant, free.pop(), short)))
        for one in [r for r in running if r[2].done()]:
            running.remove(one)
            mutant, more, trial = one
            trial.copy.restore(mutant.path)
            free.append(trial.copy)
            tests = reach.tests_of(mutant)
            if (
                trial.answer["exit"] in (0, 5)
                and not more
                and len(_within(tests, options.seconds)) < len(tests)
                and options.more
            ):
                waiting.append((mutant, True))
                continue
            results.append(_result(mutant, trial.answer, len(_within(tests, options.more if more else options.seconds))))
            print(
                f"{len(results)}/{len(mutants)} {results[-1]['outcome']:<12} {mutant.path} {mutant.scope}: {mutant.rule}",
                flush=True,
            )
        time.sleep(0.02)
    return results


def _within(tests: list[Test], seconds: float) -> list[Test]:
    """Of the tests, in their order, those that fit into so many seconds together; at least one."""
    kept, total = tests[:1], sum(t.seconds for t in tests[:1])
    for test in tests[1:]:
        if total + test.seconds <= seconds:
            total += test.seconds
            kept.append(test)
    return kept


def _begin(mutant: Mutant, copy: copies.Copy, tests: list[Test]) -> Trial:
    copy.put(mutant.path, mutant.applied(source(copies.ROOT, mutant.path)))
    files = list(dict.fromkeys(t.file for t in tests))
    limit = 60 + 4 * sum(t.seconds for t in tests)
    plugin: Callable[[Path], Any] = partial(Chosen, tests=[t.name for t in tests])
    return Trial(copy, limit, [*files, "-x"], plugin).start()


def _result(mutant: Mutant, answer: dict[str, Any], tests: int) -> dict[str, Any]:
    text = source(copies.ROOT, mutant.path)
    why = _known().get((Path(mutant.path).name, *mutant.changed(text)))
    code, said = answer["exit"], answer.get("why", "")
    outcome = {None: "timed out", 0: "survived", 5: "not covered", "none": "not covered"}.get(code, "killed")
    outcome = "equivalent" if why and outcome in ("survived", "not covered") else outcome
    outcome = "stillborn" if outcome == "killed" and any(word in said for word in _STILLBORN) else outcome
    return {
        "path": mutant.path, "scope": mutant.scope, "rule": mutant.rule, "outcome": outcome, "tests": tests,
        "seconds": round(answer.get("seconds", 0), 1), "by": answer.get("test"), "why": why or said, "diff": mutant.diff(text),
    }  # fmt: skip


def _known() -> dict[tuple[str, str, str], str]:
    """Why mutants are equivalent, by file name and the lines that change."""
    listed = tomllib.loads((HERE / "equivalent.toml").read_text()).get("mutant", [])
    return {(m["file"], m["was"], m["now"]): m["why"] for m in listed}


def _report(results: list[dict[str, Any]]) -> None:
    """The table by module, and a file with what nothing noticed."""
    by_path: dict[str, Counter[str]] = {}
    for result in results:
        by_path.setdefault(result["path"], Counter())[result["outcome"]] += 1
    by_path["all"] = sum(by_path.values(), Counter())
    print(f"\n{'module':<44}{'made':>6}" + "".join(f"{o:>13}" for o in OUTCOMES) + f"{'killed of the rest':>20}")
    for path, counts in by_path.items():
        made = sum(counts.values()) - counts["stillborn"]
        real = made - counts["equivalent"]
        share = f"{(counts['killed'] + counts['timed out']) / real:.0%}" if real else "-"
        print(f"{path:<44}{made:>6}" + "".join(f"{counts[o]:>13}" for o in OUTCOMES) + f"{share:>20}")
    print(f"{by_path['all']['stillborn']} more could not run (a name that is not there, SQL that does not parse): not counted")
    left = [r for r in results if r["outcome"] in ("survived", "not covered")]
    lines = [f"{r['outcome']} {r['tests']} tests of {r['scope']}\n{r['diff']}\n" for r in left]
    (copies.BUILD / "survivors.diff").write_text("\n".join(lines))
    print(f"{len(left)} that nothing noticed: {copies.BUILD / 'survivors.diff'}", file=sys.stderr)


if __name__ == "__main__":
    main()
