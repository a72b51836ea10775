"""A process that generates with vLLM's offline API, in an installation of its own: python -m vllm_offline PLAN.json

PLAN: {"model": folder, "engine": LLM's options, "params": [SamplingParams' options], "rounds": [[prompt ids, ...], ...], "out":
file}; what was said is written there: [{"request", "prompt", "answer"}], a row for each answer.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Do it; what moescope wrote is complete when this ends."""
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    from vllm import LLM, SamplingParams

    engine = LLM(model=plan["model"], **plan["engine"])
    said = []
    for prompts in plan["rounds"]:
        params = [SamplingParams(detokenize=False, **plan["params"][n % len(plan["params"])]) for n in range(len(prompts))]
        found = engine.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        said += [
            {"request": one.request_id, "prompt": list(one.prompt_token_ids), "answer": list(answer.token_ids)}
            for one in found
            for answer in one.outputs
        ]
    Path(plan["out"]).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
