"""What the README shows of `moescope import`: three responses in vLLM's form of known random routing, one of them spoilt."""

import json
import os
import sys
import tempfile
from pathlib import Path

ASKED = [
    ["import", "served.jsonl", "--model", "config.json", "--store", "run.duckdb"],
    ["import", "served.jsonl", "--model", "config.json", "--store", "run.duckdb", "--keep-going", "--quiet"],
    ["sql", "run.duckdb", "select layer, busiest_share, dead from load_balance order by layer"],
]


def example() -> str:
    """The commands and what they print, run in a folder of their own."""
    from click.testing import CliRunner

    from moescope.cli import main

    sys.path.append(str(Path(__file__).parents[1] / "tests" / "builders" / "inputs"))
    import captures

    lines, here = ["```"], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        made = captures.served(experts=32, top_k=4, layers=4, dense=(0,), n=3)
        found = captures.vllm(made)
        ids = made.planes(made.sequences[1])
        ids[1::2] = 0  # as where every second row is another rank's
        found[1]["choices"][0]["routed_experts"] = captures.npy(ids)
        captures.lines(Path(folder) / "served.jsonl", found)
        (Path(folder) / "config.json").write_text(json.dumps(made.config()))
        os.chdir(folder)
        try:
            for asked in ASKED:
                done = CliRunner().invoke(main, asked)
                said = " ".join(f'"{word}"' if " " in word else word for word in asked)
                lines += [f"$ moescope {said}", done.output.rstrip()]
        finally:
            os.chdir(here)
    return "\n".join([*lines, "```"])


def formats() -> str:
    """Every format with what of it is read."""
    from moescope.importers._core.door import importers

    found = {name: (module.__doc__ or "").strip().split("\n\n")[0] for name, module in importers().items()}
    rows = [f"| `{name}` | {' '.join(words.split()).partition(': ')[2]} |" for name, words in found.items()]
    return "\n".join(["| format | what is read |", "|---|---|", *rows])
