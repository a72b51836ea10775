"""How much a sweep gains by not computing again what an edit cannot touch: CPU time of both ways in one run, as a ratio.

    python -m benchmarks.speed.ablation_sweep [--layers 8] [--rounds 5]

A Mixtral with random weights; every layer's routed block edited in turn (`zero`, one expert); both ways in shuffled order in
each round; process CPU time, median of the rounds. The results are compared bit for bit on the way.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from moescope.contracts import find
from moescope.interventions import Zero, intervene
from moescope.interventions.ablation.prefix import Prefix


def build(layers: int, hidden: int = 256) -> Any:
    """A Mixtral of so many layers, 8 experts, top-2."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=1000, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


def timed(call: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """CPU seconds and result."""
    began = time.process_time()
    made = call()
    return time.process_time() - began, made


def measure(layers: int, rounds: int, length: int = 256, batch: int = 4) -> dict[str, Any]:
    """Medians of seconds per set of a sweep over all layers, plain and shared, and their ratio."""
    model = build(layers)
    inputs = {"input_ids": torch.randint(3, 1000, (batch, length)), "use_cache": False}
    sites = find(model)
    prefix = Prefix(model, sites)
    prefix.run(inputs)

    def run(number: int, shared: bool) -> torch.Tensor:
        with torch.no_grad(), intervene(model, Zero(router=sites[number].path, experts=[0]), sites=sites):
            if not shared:
                return model(**inputs).logits
            with prefix.resume([sites[number]]):
                return model(**inputs).logits

    seconds: dict[bool, list[list[float]]] = {way: [[] for _ in sites] for way in (False, True)}
    for _ in range(rounds):
        for number in random.sample(range(len(sites)), len(sites)):
            made = {}
            for shared in random.sample([False, True], 2):
                took, made[shared] = timed(lambda n=number, s=shared: run(n, s))
                seconds[shared][number].append(took)
            assert torch.equal(made[False], made[True])
    plain, shared_ = ([statistics.median(s) for s in seconds[way]] for way in (False, True))
    return {
        "layers": layers, "tokens": batch * length, "rounds": rounds,
        "plain_s_per_set": sum(plain) / layers, "shared_s_per_set": sum(shared_) / layers,
        "speed_up": sum(plain) / sum(shared_), "first_layer": plain[0] / shared_[0], "last_layer": plain[-1] / shared_[-1],
    }  # fmt: skip


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    print(json.dumps(measure(options.layers, options.rounds), indent=1))


if __name__ == "__main__":
    main()
