"""What a model takes is known before it is loaded: by published configurations, in literals."""

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from benchmarks.loading.published import plans
from moescope.memory import free
from moescope.models.placing.memory_plan import plan
from moescope.models.placing.placement import Placement
from moescope.models.skeleton import skeleton

GB = 10**9


def test_models_that_people_have_on_machines_that_people_have() -> None:
    """Totals as the model cards say: 46.7 billion weights in bfloat16; 20.9 billion, read back from MXFP4."""
    rows = [
        (case.model, case.gpus, f"{found.parameters / GB:.1f}", f"{found.total / GB:.1f}", [*found.places])
        for case, found in plans()
    ]
    assert rows == [
        ("Mixtral 8x7B", (24,), "46.7", "93.4", [0, "cpu"]),
        ("Mixtral 8x7B", (24,), "46.7", "93.4", [0, "cpu", "disk"]),
        ("Mixtral 8x7B", (80,), "46.7", "93.4", [0, "cpu"]),
        ("Mixtral 8x7B", (80, 80), "46.7", "93.4", [0, 1]),
        ("Mixtral 8x7B", (80,), "46.7", "46.8", [0]),
        ("gpt-oss-20b", (24,), "20.9", "41.8", [0, "cpu"]),
        ("gpt-oss-20b", (80,), "20.9", "41.8", [0]),
        ("gpt-oss-20b", (), "20.9", "41.8", ["cpu"]),
    ]


def test_no_device_gets_more_than_it_has() -> None:
    for case, found in plans():
        for place, share in found.places.items():
            most = case.gpus[place] * 0.9 if isinstance(place, int) else case.ram if place == "cpu" else 1000
            assert 0 < share <= most * GB, (case, place)
        assert sum(found.places.values()) == found.total or abs(sum(found.places.values()) - found.total) < len(found.places)


def test_sizes_are_those_of_the_type_that_is_loaded() -> None:
    config = MixtralConfig(vocab_size=10, hidden_size=8, intermediate_size=4, num_hidden_layers=1, num_attention_heads=2,
                           num_key_value_heads=2, num_local_experts=2, dtype=torch.bfloat16)  # fmt: skip
    here = Placement(torch.device("cpu"))
    count = sum(p.numel() for p in skeleton(MixtralForCausalLM, config, "auto").parameters())
    for dtype, width in (("auto", 2), (torch.float32, 4), (torch.float16, 2)):
        model = skeleton(MixtralForCausalLM, config, dtype)
        assert all(p.is_meta for p in model.parameters())
        found = plan("m", model, here, {"cpu": GB, "disk": GB})
        buffers = sum(b.nbytes for b in model.buffers())
        assert found.total == count * width + buffers
        assert found.largest == 2 * 8 * 8 * width  # gate and up of two experts


def test_free_memory_is_some_and_no_more_than_the_machine_has() -> None:
    import psutil

    assert 0 < free() <= psutil.virtual_memory().total
