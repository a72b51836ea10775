"""The experts that came next on the Tokens page, by each router's own rule, as the tiny model itself computes it."""

import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
import synthetic
import torch
from streamlit.testing.v1 import AppTest

import moescope
from moescope.models import tiny
from moescope.store import ranking

MAIN = Path(__file__).parents[3] / "moescope" / "app" / "main.py"
TOKEN = 3


def softmax(router: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1)


def sigmoid(router: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    return logits.sigmoid()


def corrected(router: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """As DeepSeek-V3 selects: score + bias, in the groups whose best two have the largest sum."""
    values = logits.sigmoid() + router.e_score_correction_bias
    groups = values.view(len(values), router.num_group, -1)
    kept = groups.topk(2, -1).values.sum(-1).topk(router.topk_group, -1).indices
    outside = torch.ones(groups.shape[:2], dtype=torch.bool).scatter(1, kept, False)
    return groups.masked_fill(outside[..., None], float("-inf")).flatten(1)


def limited(router: torch.nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """As DeepSeek-V2 selects: probability, in the groups with the largest single one."""
    groups = logits.softmax(-1).view(len(logits), router.num_group, -1)
    kept = groups.amax(-1).topk(router.topk_group, -1).indices
    outside = torch.ones(groups.shape[:2], dtype=torch.bool).scatter(1, kept, False)
    return groups.masked_fill(outside[..., None], float("-inf")).flatten(1)


FAMILIES = {
    "mixtral": softmax, "qwen3_moe": softmax, "gpt_oss": softmax, "llama4_text": sigmoid, "deepseek_v3": corrected,
    "glm4_moe": corrected, "deepseek_v2": limited,
}  # fmt: skip
WORDS = {
    softmax: "its own rule, softmax;", sigmoid: "its own rule, sigmoid;", limited: "softmax, in the best 2 of 4 groups",
    corrected: "sigmoid + correction bias, in the best 2 of 4 groups",
}  # fmt: skip


def built(family: str) -> tiny.TinyModel:
    """With logits far enough apart to be told from each other, and a bias that moves choices."""
    made = tiny.build(family)
    draw = torch.Generator().manual_seed(5)
    for name, module in made.model.named_modules():
        if hasattr(module, "e_score_correction_bias"):
            module.e_score_correction_bias.copy_(0.3 * torch.randn(module.e_score_correction_bias.shape, generator=draw))
        if name.endswith(("gate", "router")) and hasattr(module, "weight"):
            module.weight.data.mul_(3)
    return made


def page(store: Path, monkeypatch: pytest.MonkeyPatch, token: int = TOKEN) -> AppTest:
    monkeypatch.setenv("MOESCOPE_STORE", str(store))
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params["token"] = str(token)
    test.switch_page("views/tokens.py")
    assert not test.run().error
    return test


def shown(test: AppTest) -> list[list[tuple[int, float]]]:
    """By layer from the last to the first, the experts named as next, with their numbers."""
    (table,) = [h.value for h in test.get("html") if isinstance(h.value, str) and 'class="ms-route"' in h.value]
    rows = re.findall(r"<tr>(<td>.*?)</tr>", table)
    cells = [re.findall(r"<td>(.*?)</td>", row)[-1] for row in rows]
    return [[(int(e), float(v)) for e, v in re.findall(r"(\d+) \((-?[\d.]+)\)", cell)] for cell in cells]


def captions(test: AppTest) -> str:
    return " ".join(c.value for c in test.caption).replace("\\", "")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sampled(3)
def test_the_next_experts_are_those_of_the_routers_own_rule(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = built(family), tmp_path / "run.duckdb"
    with moescope.Tracer(made.model, path, inputs=made.inputs, logits=1.0), torch.no_grad():
        made.model(**made.inputs)
    with moescope.open(path) as store:
        routers = store.rows("select router, name from routers order by layer")
        logits = {r: np.array(x) for r, x in store.rows("select router, logits from logits where token = ?", [TOKEN])}
        ran = {r: set(e) for r, e in store.rows(
            "select router, list(expert) from assignments where token = ? group by router", [TOKEN])}  # fmt: skip
    wanted = []
    for router, name in routers:
        values = FAMILIES[family](made.model.get_submodule(name), torch.tensor(logits[router])[None].float())[0]
        order = values.argsort(descending=True).tolist()
        assert set(order[: len(ran[router])]) == ran[router]
        wanted.append([(e, float(values[e])) for e in order[len(ran[router]) :] if values[e].isfinite()][:3])
    test = page(path, monkeypatch)
    found = shown(test)[::-1]
    assert [[e for e, _ in row] for row in found] == [[e for e, _ in row] for row in wanted]
    assert [v for row in found for _, v in row] == pytest.approx([v for row in wanted for _, v in row], abs=0.006)
    assert WORDS[FAMILIES[family]] in captions(test)


REVERSED = "update logits set logits = list_reverse(logits)"
OVERRULED = [
    (REVERSED, "Next best: by softmax only. What ran does not follow from the stored logits by a rule that the store knows"),
    (f"{REVERSED} where router = 1",
     "Next best in layer 2: by softmax only."),
    ("update routers set score = null; " + REVERSED, "Next best: by logit only."),
    (f"{REVERSED} where token = {TOKEN}",
     "The experts that ran in layer 0, layer 2, layer 3 are not the first of the router's own order"),
    ("update routers set kind = 'expert_choice'", "Alternatives need router logits of routers whose tokens choose experts"),
    ("delete from logits", "Alternatives need router logits of routers whose tokens choose experts"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("change", "words"), OVERRULED)
@pytest.mark.sampled(3)
def test_what_ran_by_no_known_rule_is_not_said_to_be_next(
    change: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.duckdb"
    synthetic.make(path, documents=2, tokens=20, logits=True)
    with duckdb.connect(str(path)) as con:
        con.execute(change)
    assert words in captions(page(path, monkeypatch))


SHIFT = np.random.default_rng(3).permutation(np.linspace(-0.1, 0.1, 12))
RULES = [
    ranking.Ranking(score, bias, on, groups, kept, by)
    for score in ("softmax", "sigmoid", "sqrtsoftplus")
    for bias, on in ((None, "score"), (SHIFT, "score"), (9 * SHIFT, "logit"))
    for groups, kept, by in ((0, 0, "the best two"), (4, 2, "the best two"), (4, 2, "the best one"))
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.words} {rule.group_by}")
def test_a_rule_is_read_off_what_a_router_did(rule: ranking.Ranking) -> None:
    logits = np.random.default_rng(1).normal(size=(200, 12))
    chosen = np.argsort(-rule.values(logits), axis=1)[:, :3]
    bias = SHIFT if rule.bias is None else rule.bias  # known, though it need not take part
    extra = json.dumps({"bias": {"name": "b", "values": bias.tolist()}, "groups": 4, "groups_kept": 2})
    found = ranking.learn(rule.score, extra, list(logits), chosen.tolist())
    assert found is not None
    assert (found.words, found.group_by if found.groups else "", found.bias is None) == (
        rule.words, rule.group_by if rule.groups else "", rule.bias is None)  # fmt: skip
    assert np.array_equal(np.argsort(-found.values(logits))[:, :3], chosen)


@pytest.mark.parametrize("extra", [None, "{}", '{"groups": 5, "groups_kept": 2, "bias": null}', '{"bias": {"values": [1.0]}}'])
def test_no_rule_is_believed_that_decisions_do_not_bear_out(extra: str | None) -> None:
    draw = np.random.default_rng(2)
    logits, chosen = draw.normal(size=(50, 12)), np.argsort(draw.normal(size=(50, 12)), axis=1)[:, :2]
    assert ranking.learn("softmax", extra, list(logits), chosen.tolist()) is None
    assert ranking.learn("softmax", extra, [], []) is None
    assert ranking.learn("softmax", extra, [np.full(12, np.nan)], [[1, 2]]) is None
    assert ranking.learn("softmax", extra, [logits[0]], [[1, 12]]) is None  # 12: no routed expert, its score is not known
