"""Which versions of Transformers moescope reads right: every family of each, built tiny, traced and proved.

    python -m benchmarks.versions --folder DIR [5.13.0 5.18.0 ...]

Each version is installed by pip into a folder of its own under DIR (without its dependencies, but with tokenizers and
huggingface-hub where it asks for others than are here) and runs in a process of its own. Writes benchmarks/versions.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

RESULTS = Path(__file__).with_name("versions.json")
COMPANIONS = ("tokenizers", "huggingface-hub")


def install(number: str, folder: Path) -> Path:
    """The folder that holds this version; installed there unless it is already."""
    target = folder / number
    if not (target / "transformers").is_dir():
        pip(target, [f"transformers=={number}"])
        if wanted := unmet(target):
            pip(target, wanted)
    return target


def pip(target: Path, requirements: list[str]) -> None:
    """Install into `target`, without dependencies."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
    subprocess.run([*command, "--target", str(target), *requirements], check=True)


def unmet(target: Path) -> list[str]:
    """Companions that the installed version of Transformers asks for and this environment has otherwise."""
    found: Distribution = next(d for d in distributions(path=[str(target)]) if d.metadata["Name"] == "transformers")
    wanted = [Requirement(line) for line in found.requires or () if "extra ==" not in line]
    return [str(r) for r in wanted if r.name in COMPANIONS and not r.specifier.contains(_here(r.name))]


def _here(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "0"


def prove(target: Path | None) -> dict[str, Any]:
    """The table of one version, made in a process that sees `target` first (None: the version of this environment)."""
    seen = {} if target is None else {"PYTHONPATH": str(target)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.versions", "--here"], env=os.environ | seen, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"version": target.name if target else version("transformers"), "unusable": last}
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": round(time.perf_counter() - began)}


def here() -> dict[str, Any]:
    """{version, families, proved, not_buildable, refused} of the Transformers that this process sees.

    A family is not buildable where the shrinker's sizes do not run in that version (its own forward fails, so nothing was
    asked of moescope); refused where moescope says that it cannot vouch for its routers.
    """
    from moescope.errors import MoescopeError
    from moescope.models import tiny
    from moescope.routers.versions import check_version

    made: dict[str, Any] = {"version": version("transformers"), "families": len(tiny.names()), "proved": []}
    made |= {"not_buildable": {}, "refused": {}}
    try:
        check_version(made["version"])
    except MoescopeError as error:
        made["check"] = str(error)
    for name in tiny.names():
        where, why = judged(name)
        if where == "proved":
            made["proved"].append(name)
        else:
            made[where][name] = why
    return made


def judged(name: str) -> tuple[str, str]:
    """(proved | not_buildable | refused, why) of one family."""
    import torch

    from moescope.errors import MoescopeError
    from moescope.models import tiny
    from moescope.proof.families import families

    try:
        built = tiny.build(name)
        with torch.no_grad():
            built.model(**built.inputs)
    except Exception as error:
        return "not_buildable", _short(error)
    try:
        row = next(iter(families([name])))
    except (MoescopeError, Exception) as error:
        return "refused", _short(error)
    return ("proved", "") if row.proved else ("refused", row.reason)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]


def as_text(made: dict[str, Any]) -> str:
    """One version, for the terminal."""
    if "unusable" in made:
        return f"{made['version']:8} unusable: {made['unusable']}"
    lines = [f"{made['version']:8} {len(made['proved'])} of {made['families']} families proved, {made['seconds']} s"]
    for kind in ("not_buildable", "refused"):
        lines += [f"         {kind.replace('_', ' ')}: {name} ({why})" for name, why in made[kind].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure and write; `--here` is what the processes run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", default=["5.13.0", "5.18.0"])
    parser.add_argument("--folder", type=Path, help="where the versions are installed, each in a folder of its name")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        print(json.dumps(here()))
        return
    if chosen.folder is None:
        parser.error("--folder DIR: a folder to install the versions into, outside this environment")
    rows = []
    for target in [*(install(number, chosen.folder.resolve()) for number in chosen.versions), None]:
        rows.append(prove(target))
        print(as_text(rows[-1]), flush=True)
    RESULTS.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
