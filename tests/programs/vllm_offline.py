"""A process that generates with vLLM's offline API, in an installation of its own: python -m vllm_offline PLAN.json...

PLAN: {"model": folder, "store": file or null, "engine": LLM's options, "params": [SamplingParams' options], "rounds": [[prompt
ids, ...], ...], "out": file}; what was said is written there: {"said": [{"request", "prompt", "answer"}, a row for each
answer], "seconds": [of each round], "cpu": [likewise, with what its threads did until the next begins]}. One engine after
another, each in a process of its own. With "turns" a round waits for a line, and one is printed when it is done (TURN).
"""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

TURN = "a turn is over"


def main() -> None:
    """Do it; what moescope wrote is complete when this ends."""
    from vllm import LLM, SamplingParams  # once, for all

    for name in sys.argv[1:]:
        if (child := os.fork()) == 0:
            _done(json.loads(Path(name).read_text()), LLM, SamplingParams)
            sys.exit(0)
        if status := os.waitpid(child, 0)[1]:
            sys.exit(f"the engine of {name} failed ({status})")


def _done(plan: dict[str, Any], llm: Any, sampling: Any) -> None:
    os.environ["MOESCOPE_VLLM_STORE"] = plan["store"] or ""
    engine = llm(model=plan["model"], **plan["engine"])
    said, seconds, spent = [], [], []
    for prompts in plan["rounds"]:
        params = [sampling(detokenize=False, **plan["params"][n % len(plan["params"])]) for n in range(len(prompts))]
        if plan.get("turns"):
            print(TURN, flush=True)
            sys.stdin.readline()
        began = time.perf_counter()
        spent.append(time.process_time())
        found = engine.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds.append(time.perf_counter() - began)
        said += [
            {"request": one.request_id, "prompt": list(one.prompt_token_ids), "answer": list(answer.token_ids)}
            for one in found
            for answer in one.outputs
        ]
    if plan.get("turns"):
        print(TURN, flush=True)
        sys.stdin.readline()
    spent.append(time.process_time())
    cpu = [after - before for before, after in pairwise(spent)]
    Path(plan["out"]).write_text(json.dumps({"said": said, "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main()
