"""Whatever a user does with a model: the store holds what ran, and the model, its outputs and all randomness are as without."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from calls import FAMILIES, Program, programs
from hypothesis import HealthCheck, Phase, given, settings
from play import Played, play
from sampled import how_many
from witness import differences

import moescope

SEQUENCES = int(os.environ.get("MOESCOPE_SEQUENCES", how_many(60, 12)))
MEMORY = Path("/dev/shm")  # thousands of stores: a disk would wait for each
RAN = dict.fromkeys(FAMILIES, 0)


def unlike(traced: Played, plain: Played) -> list[str]:
    """Outputs, state and randomness that tracing changed, in sentences."""
    said = []
    if len(traced.came) != len(plain.came):
        return [f"{len(plain.came)} things came out untraced, {len(traced.came)} traced"]
    for number, (one, other) in enumerate(zip(traced.came, plain.came)):
        same = (
            torch.equal(_bits(one), _bits(other))
            if torch.is_tensor(one) and torch.is_tensor(other)
            else one is other or one == other
        )
        if not same:
            said.append(f"output {number} differs: {_short(one)}, untraced {_short(other)}")
    keys = traced.state.keys() | plain.state.keys()
    said += [
        f"{key} of the model differs"
        for key in sorted(keys)
        if traced.state.get(key, "absent") != plain.state.get(key, "absent")
    ]
    if not torch.equal(traced.random[0], plain.random[0]) or traced.random[1:] != plain.random[1:]:
        said.append("the random state differs")
    return said


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _short(value: object) -> object:
    return tuple(value.shape) if torch.is_tensor(value) else value


def wrong(program: Program) -> list[str]:
    """What is wrong around a program, traced and untraced on equal copies."""
    with tempfile.TemporaryDirectory(prefix="programs-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        plain = play(program, None)
        try:
            traced = play(program, Path(folder))
        except Exception as error:
            return [f"traced it ends by {type(error).__name__}: {error}"]
        said = unlike(traced, plain)
        for number, (tracer, calls) in enumerate(traced.tracers):
            if tracer.run is None:
                said += [f"tracer {number} stored nothing"] if any(not c.failed for c in calls) else []
                continue
            with moescope.open(Path(folder) / f"{number}.duckdb") as store:
                said += [f"tracer {number}: {text}" for text in differences(store, tracer.run, calls)]
    return said


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_programs(family: str) -> None:
    """Random sequences of calls; MOESCOPE_SEQUENCES says how many over all families."""

    @settings(
        max_examples=max(1, SEQUENCES // len(FAMILIES)), deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=(Phase.generate, Phase.shrink), print_blob=False, derandomize=True,
    )  # fmt: skip
    @given(program=programs(family))
    def holds(program: Program) -> None:
        RAN[family] += 1
        assert wrong(program) == []

    holds()
    print(f"\n{RAN[family]} sequences of {family} ran and nothing was found")
