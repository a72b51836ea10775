"""One test for every trap of routed families: what a naive reader of router outputs gets wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tinies import seen, traced

import moescope
from moescope.contracts.sorted_dispatch import assigned, dispatch
from moescope.models import tiny
from moescope.proof import edited, observed


def test_slot_is_not_rank(tmp_path: Path) -> None:
    """DeepSeek-V3 chooses by biased score: its own order differs from the weights' in most rows, and both are kept."""
    built, sites, records = seen("deepseek_v3")
    with traced(built, tmp_path / "s.duckdb") as store:
        rows = store.rows("select token, slot, rank, expert, weight from assignments where router = 0 order by token, slot")
    real = built.inputs["attention_mask"].flatten().bool()
    record = records[sites[0].path]
    assert [row[3] for row in rows] == record.experts[real].flatten().tolist()
    assert [row[4] for row in rows] == record.weights[real].flatten().tolist()
    by_rank = sorted(rows, key=lambda row: (row[0], row[2]))
    weights = np.array([row[4] for row in by_rank]).reshape(-1, 4)
    assert (np.diff(weights, axis=1) <= 0).all()
    assert sum(row[1] != row[2] for row in rows) > len(rows) // 4


@pytest.mark.parametrize(
    ("name", "total"), [("mixtral", 1.0), ("deepseek_v3", 2.5), ("openai_privacy_filter", 0.5), ("laguna", 1.0), ("beam", 1.0)]
)
def test_weights_sum_to_what_they_sum_to(name: str, total: float) -> None:
    """As they enter the experts; a scale on the block's output is noted, and not multiplied in."""
    _, sites, records = seen(name)
    for record in records.values():
        torch.testing.assert_close(record.weights.sum(-1), torch.full((24,), total))
    scale = sites[0].rule.get("scale")
    expected = {"deepseek_v3": (2.5, "weights"), "laguna": (1.5, "output"), "beam": (2.5, "output")}
    assert (scale and (scale["value"], scale["on"])) == expected.get(name)


def test_unnormalized_weights_stay_so() -> None:
    """OLMoE's weights are probabilities of all experts; they are not made to sum to one."""
    _, _, records = seen("olmoe")
    assert all(0 < float(r.weights.sum(-1).max()) < 0.999 for r in records.values())


@pytest.mark.parametrize("name", ["deepseek_v3", "ernie4_5_moe", "kolibri1"])
def test_bias_and_groups_are_noted_and_show_as_negative_margins(name: str, tmp_path: Path) -> None:
    """Logits alone do not give the decision; the bias that does is kept, and the margin says where it decided."""
    built, sites, _ = seen(name)
    extra = sites[0].rule
    assert len(extra["bias"]["values"]) == sites[0].n_experts
    assert (extra.get("groups"), extra.get("groups_kept")) == ((4, 2) if name == "deepseek_v3" else (None, None))
    with traced(built, tmp_path / "s.duckdb") as store:
        assert store.rows("select count(*) > 0 from decisions where margin < 0") == [(True,)]
        ((kept,),) = store.rows("select extra->>'$.bias.name' from routers where router = 0")
    assert kept == "e_score_correction_bias"


def test_skipping_is_no_vote_for_expert_0(tmp_path: Path) -> None:
    """ZAYA hands 'skip' over as expert 0 with weight 0; stored is expert 8 with the role skip."""
    built, _, _ = seen("zaya")
    raw = []
    hooks = [
        m.register_forward_pre_hook(lambda _, args: raw.append((args[1].flatten(), args[2].flatten())))
        for n, m in built.model.named_modules()
        if n.endswith("mlp.experts")
    ]
    with torch.no_grad():
        built.model(**built.inputs)
    for hook in hooks:
        hook.remove()
    real = built.inputs["attention_mask"].flatten().bool()
    skipped = sum(int(((e == 0) & (w == 0))[real].sum()) for e, w in raw)
    zeros = sum(int(((e == 0) & (w != 0))[real].sum()) for e, w in raw)
    with traced(built, tmp_path / "s.duckdb") as store:
        assert store.rows("select distinct expert, role from experts where role <> 'routed'") == [(8, "skip")]
        counts = dict(store.rows("select expert, count(*) from assignments where expert in (0, 8) group by 1"))
    assert skipped > 0
    assert (counts.get(8, 0), counts.get(0, 0)) == (skipped, zeros)


def test_skip_can_be_written() -> None:
    """An edit that names expert 8 makes the layer give nothing."""
    built, sites, _ = seen("zaya")
    with edited(sites, lambda *_: lambda e, w: (torch.full_like(e, 8), w)), observed(sites) as calls, torch.no_grad():
        built.model(**built.inputs)
    for site in sites:
        assert calls[site.name][0].record.experts.unique().tolist() == [8]
        assert not calls[site.name][0].output.any()


def test_identities_are_experts_with_a_role(tmp_path: Path) -> None:
    """LongCat's experts 8 to 11 hand their token on."""
    built, sites, _ = seen("longcat_flash")
    assert (sites[0].n_experts, sites[0].roles) == (8, dict.fromkeys(range(8, 12), "identity"))
    with traced(built, tmp_path / "s.duckdb") as store:
        assert store.rows("select count(*) > 0 from assignments where expert >= 8") == [(True,)]
        assert store.rows("select role, count(*) from experts where router = 0 group by 1 order by 1") == [
            ("identity", 4),
            ("routed", 8),
        ]


def test_dropped_is_dropped(tmp_path: Path) -> None:
    """Switch: two places per expert and sequence; the rest is stored as dropped, with the expert that had no room."""
    built, _, _ = seen("switch_transformers")
    with traced(built, tmp_path / "s.duckdb") as store:
        rows = store.rows(
            "select a.router, t.sequence, a.expert, count(*) filter (not dropped), count(*) filter (dropped) "
            "from assignments a join tokens t using (token) group by all"
        )
    assert max(kept for *_, kept, _ in rows) == 2
    assert sum(dropped for *_, dropped in rows) > 0


def test_two_routers_in_a_layer(tmp_path: Path) -> None:
    """JetMoE: one of the attention, one of the feed-forward, of the same tokens."""
    built, sites, _ = seen("jetmoe")
    assert {(s.layer, s.block_type) for s in sites} == {(layer, where) for layer in range(4) for where in ("attention", "ffn")}
    with traced(built, tmp_path / "s.duckdb") as store:
        rows = store.rows(
            "select block_type, count(distinct router), count(distinct token) from assignments join routers using (router) "
            "group by 1 order by 1"
        )
    assert rows == [("attention", 4, 20), ("ffn", 4, 20)]


def test_sorted_dispatch_is_undone() -> None:
    """JetMoE's five-tuple → choices in the router's own order → the same five-tuple."""
    built, _, records = seen("jetmoe")
    router = built.model.get_submodule("model.layers.0.mlp.router")
    output = router(torch.randn(24, 32))
    experts, weights = assigned(output)
    assert torch.equal(experts, output[4].topk(2, -1).indices)
    torch.testing.assert_close(weights, output[4].topk(2, -1).values.softmax(-1))
    order, tokens, sorted_, sizes = dispatch(experts, weights, 8)
    assert sizes == output[3]
    assert all(torch.equal(a, b) for a, b in zip((order, tokens, sorted_), output[:3]))
    assert all(r.experts.shape == (24, 2) for r in records.values())


def test_token_subsets_name_their_tokens(tmp_path: Path) -> None:
    """ERNIE 4.5 VL: text and vision routers of a layer see different tokens of one stream."""
    built, _, _ = seen("ernie4_5_vl_moe_text")
    with traced(built, tmp_path / "s.duckdb") as store:
        rows = store.rows(
            "select r.block_type, t.sequence, list(distinct t.position order by t.position) from assignments a "
            "join routers r using (router) join tokens t using (token) where r.layer = 0 group by all order by 1, 2"
        )
    text, image = [0, 1, 6, 7], [2, 3, 4, 5]  # the first sequence begins after four pads
    assert rows == [
        ("ffn.text", 0, text), ("ffn.text", 1, [0, 1, 2, 3, 4, 5, 10, 11]),
        ("ffn.vision", 0, image), ("ffn.vision", 1, [6, 7, 8, 9]),
    ]  # fmt: skip


def test_text_alone_leaves_vision_routers_silent(tmp_path: Path) -> None:
    """Proved with both kinds of token, traced with one: the run is written, and the silent routers have no rows."""
    built = tiny.build("ernie4_5_vl_moe_text")
    alone = {k: v for k, v in built.inputs.items() if k != "moe_mm_token_type_ids"}
    with moescope.Tracer(built.model, tmp_path / "s.duckdb", inputs=built.inputs), torch.no_grad():
        built.model(**alone)
    with moescope.open(tmp_path / "s.duckdb") as store:
        rows = store.rows(
            "select block_type, count(distinct token) from routers left join assignments using (router) group by 1 order by 1"
        )
    assert rows == [("ffn.text", 20), ("ffn.vision", 0)]


def test_hash_layers_follow_the_table() -> None:
    """DeepSeek-V4: in layers 0 and 2 the token's id names its experts; the weights are still the router's."""
    built, sites, records = seen("deepseek_v4")
    assert [s.kind for s in sites] == ["hash", "token_choice", "hash", "token_choice"]
    table = sites[0].router.tid2eid  # type: ignore[union-attr]
    assert torch.equal(records[sites[0].path].experts, table[built.inputs["input_ids"].flatten()])


def test_probabilities_are_not_taken_for_logits(tmp_path: Path) -> None:
    """Gemma 4's router returns a distribution: its entropy is of that, not of another softmax over it."""
    built, sites, records = seen("gemma4_text")
    assert {s.score for s in sites} == {"probabilities"}
    first = records[sites[0].path].logits
    assert first is not None
    expected = torch.special.entr(first[built.inputs["attention_mask"].flatten().bool()].double()).sum(-1)
    with traced(built, tmp_path / "s.duckdb") as store:
        entropy = store.rows("select entropy from decisions where router = 0 order by token")
    np.testing.assert_allclose(np.array(entropy)[:, 0], expected.numpy(), atol=1e-5)


def test_logits_may_be_absent(tmp_path: Path) -> None:
    """ViTPose has no router: experts and weights are there, entropy is null."""
    built, sites, _ = seen("vitpose_backbone")
    assert {s.kind for s in sites} == {"static"}
    with traced(built, tmp_path / "s.duckdb") as store:
        rows = store.rows(
            "select t.sequence, expert, weight, count(*) from assignments join tokens t using (token) group by all"
        )
        assert store.rows("select count(entropy) from decisions") == [(0,)]
    assert sorted(rows) == [(0, 0, 1.0, 48), (1, 2, 1.0, 48)]


def test_weight_on_the_input(tmp_path: Path) -> None:
    """Llama 4 multiplies what an expert reads, and the store says so."""
    built, _, _ = seen("llama4_text")
    with traced(built, tmp_path / "s.duckdb") as store:
        assert store.rows("select distinct weight_on, shared_experts from routers") == [("input", 1)]


def test_routers_are_numbered_as_they_fire(tmp_path: Path) -> None:
    """JetMoE registers a layer's MLP before its attention, and runs it after."""
    with traced(tiny.build("jetmoe"), tmp_path / "a.duckdb") as store:
        assert store.rows("select layer, block_type from routers order by router")[:4] == [
            (0, "attention"), (0, "ffn"), (1, "attention"), (1, "ffn"),
        ]  # fmt: skip
        steps = store.rows("select distinct router, next_router from transitions order by all")
    assert steps == [(n, n + 1) for n in range(7)]
