"""What the Ablation page and the curves of training pick, pair and say: literal rows in, literal rows out."""

import base64
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import synthetic_app
from pages import part, rows, same
from recounted import spread

from moescope.pictures import bars

HEALTH = ("load_entropy", "max_violation", "dropped_share", "dead", "z_loss", "balance_switch", "routing_entropy")


def effect(router: int, experts: list[int], control: str, delta: float, **more: Any) -> dict[str, Any]:
    """A row of `ablations` in mode zero on all tokens."""
    return {
        "run": 0, "ablation": "k", "router": router, "expert": experts[0] if len(experts) == 1 else None,
        "experts": json.dumps({f"gate {router}": experts}), "mode": "zero", "load": 0.1 * len(experts), "control": control,
        "group_kind": "all", "group": "all", "counted_at": "target", "n": 100, "units": 3, "delta_nll": delta,
        "ci_low": delta - 0.01, "ci_high": delta + 0.02, "p": 0.04, "q": 0.2 - delta, "control_delta_nll": delta / 4, "kl": 0.1,
    } | more  # fmt: skip


EFFECTS = [
    *(effect(1, [e], c, d) for e, d in enumerate((0.05, 0.19, 0.01, 0.02, 0.03)) for c in ("none", "load")),
    effect(1, [1], "none", 0.5, n=40), effect(1, [0, 3], "none", 0.07), effect(2, [7], "none", 0.16),
    effect(1, [1], "none", 0.4, group_kind="domain", group="law"), effect(1, [1], "none", 0.3, counted_at="input"),
    effect(1, [1], "random", 0.2), effect(1, [1], "none", 0.1, mode="mean"),
]  # fmt: skip
MEASURED = [
    {"run": 0, "router": r, "layer": r, "name": name, "subset": f"{part}step {step}", "value": step + r / 10 + i / 100, "n": 9}
    for part, steps in (("", (2, 10)), ("eval_b ", (10,))) for step in steps for r in (0, 1) for i, name in enumerate(HEALTH)
]  # fmt: skip
STEPS = [
    ("train", 2, 3.0),
    ("train", 2, 5.0),
    ("train", 10, 1.0),
    ("eval", 10, None),
    ("prefill", 0, None),
    ("forward", 4, 2.5),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("effects") / "a.duckdb"
    synthetic_app.text_run(path, "mixtral", documents=1, layers=3)
    steps = [{"run": 0, "forward": 900 + n, "phase": p, "step": s, "loss": loss} for n, (p, s, loss) in enumerate(STEPS)]
    with duckdb.connect(str(path)) as con:
        for table, found in (("ablations", EFFECTS), ("measures", MEASURED), ("forwards", steps)):
            con.register("found", pd.DataFrame(found))
            con.execute(f"insert into {table} by name from found")
    return path


@pytest.fixture(autouse=True)
def _shown(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(store))


def asked(*what: Any) -> pd.DataFrame:
    frame: pd.DataFrame = part("queries.effects").rows(*what)[0]
    return frame


def test_rows_of_a_router() -> None:
    """One mode, place and kind of group; of two sweeps of one set the one with more tokens."""
    columns = ("name", "control", "delta_nll", "n", "load", "per_load")
    expected = [
        (name, c, d, 100, load, d / load)
        for name, load, d in (
            ("1.0", 0.1, 0.05),
            ("1.1", 0.1, 0.19),
            ("1.2", 0.1, 0.01),
            ("1.3", 0.1, 0.02),
            ("1.4", 0.1, 0.03),
        )
        for c in ("load", "none")
    ]
    expected += [("1.1", "random", 0.2, 100, 0.1, 2.0), ("1.0+3", "none", 0.07, 100, 0.2, 0.35)]
    same(sorted(rows(asked(0, "zero", "target", "all", 1), *columns)), sorted(expected))
    assert rows(asked(0, "zero", "target", "domain", None), "name", "group", "delta_nll") == [("1.1", "law", 0.4)]
    assert rows(asked(0, "zero", "input", "all", 1), "name", "delta_nll") == [("1.1", 0.3)]
    assert rows(asked(0, "mean", "target", "all", 1), "name", "delta_nll") == [("1.1", 0.1)]
    assert set(asked(0, "zero", "target", "all", None)["name"]) == {"1.0", "1.1", "1.2", "1.3", "1.4", "1.0+3", "2.7"}


def test_effects_of_one_expert() -> None:
    """All of its groups, modes and controls; everything first, then by mode, control and size."""
    found = part("queries.store_access").frame(part("queries.effects").OF_EXPERT, 0, 1, 1)
    assert rows(found, "group_kind", "group", "mode", "control", "delta_nll") == [
        ("all", "all", "mean", "none", 0.1),
        ("all", "all", "zero", "load", 0.19),
        *(("all", "all", "zero", "none", d) for d in (0.5, 0.3, 0.19)),
        ("all", "all", "zero", "random", 0.2),
        ("domain", "law", "zero", "none", 0.4),
    ]


def test_a_set_beside_its_controls() -> None:
    frame = asked(0, "zero", "target", "all", 1)
    found = part("queries.effects").beside(frame)
    expected = [
        ("1.0", "itself", 0.05, 0.04, 0.07),
        ("1.1", "itself", 0.19, 0.18, 0.21),
        ("1.2", "itself", 0.01, 0.0, 0.03),
        ("1.3", "itself", 0.02, 0.01, 0.04),
        ("1.4", "itself", 0.03, 0.02, 0.05),
        ("1.0+3", "itself", 0.07, 0.06, 0.09),
    ]
    expected += [(f"1.{e}", "others of equal load", d / 4, None, None) for e, d in enumerate((0.05, 0.19, 0.01, 0.02, 0.03))]
    same(sorted(rows(found, "name", "what", "delta_nll", "ci_low", "ci_high"), key=str), sorted(expected, key=str))


def test_rows_of_controls_are_marked_as_differences() -> None:
    found = part("queries.effects").marked(asked(0, "zero", "target", "all", 1))
    assert set(rows(found, "control", "is")) == {
        ("none", "effect"), ("load", "difference from experts of equal load"), ("random", "difference from random experts"),
    }  # fmt: skip


def test_effects_against_use() -> None:
    """Single experts against the whole model, each with what the trace says of it."""
    frame = asked(0, "zero", "target", "all", 1)
    found = part("queries.effects").against_use(0, frame)
    known = {row[1]: row[2:] for row in rows(part("queries.store_access").frame(part("queries.effects").USE, 0)) if row[0] == 1}
    deltas = (0.05, 0.19, 0.01, 0.02, 0.03)
    same(
        sorted(rows(found, "expert", "delta_nll", "share", "gate_mass", "mean_weight")),
        [(e, d, *known[e]) for e, d in enumerate(deltas)],
    )
    assert sum(share for share, _, _ in known.values()) == pytest.approx(1)
    assert sum(mass for _, mass, _ in known.values()) == pytest.approx(1)


def test_the_largest_effects_and_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    panels, frame = part("parts.ablation.effect_panels"), asked(0, "zero", "target", "all", 1)
    own = frame[frame["control"] == "none"]
    assert panels.said(own, frame[frame["control"] == "load"]) == (
        "Of 6 sets of experts 1 changes the loss (q < 0.05), 1 more or less than experts of equal load do; the model misses "
        "expert 1 of layer 1 most: +0.1900 [+0.1800, +0.2100] nats, with 10 % of the load."
    )
    assert "0 change the loss (q < 0.05), 0 more" in panels.said(own.assign(q=0.05), own.assign(q=0.05))
    assert "none does surely; it misses expert 1 of layer 1 most" in panels.said(own.assign(q=0.05), own)
    assert panels.said(own.head(0), own) == "No effect against the whole model is stored."
    none = own.assign(delta_nll=float("nan"), load=float("nan"), q=float("nan"))
    assert panels.said(none, none) == "No effect against the whole model could be measured."
    assert "nan" not in panels.said(own.assign(load=float("nan"), ci_low=float("nan")), own)
    monkeypatch.setattr(panels, "MOST", 2)
    assert rows(panels.most(own.assign(delta_nll=[-0.3, 0.1, 0.01, 0.05, 0.0, 0.2])), "name") == [("1.0",), ("1.0+3",)]


def test_rank_correlation_has_ties_and_an_interval() -> None:
    """Midranks; the draws of experts laid out again, each ranked anew."""
    from scipy.stats import spearmanr

    x, y = pd.Series([1.0, 2, 2, 4, 5, 9]), pd.Series([2.0, 1, 3, 3, 8, 7])
    rho, low, high = part("queries.effects").rank_correlation(x, y)
    assert rho == pytest.approx(spearmanr(x, y)[0])
    pick = np.random.default_rng(0).integers(0, 6, (2000, 6))
    ranks = x.rank().to_numpy(), y.rank().to_numpy()
    drawn = [spearmanr(ranks[0][p], ranks[1][p])[0] if len(set(x[p])) > 1 and len(set(y[p])) > 1 else 0.0 for p in pick]
    assert (low, high) == pytest.approx(spread(rho, np.array(drawn), 6, (-1, 1)))


def test_curves_of_training() -> None:
    training, frame = part("parts.load.training"), part("queries.store_access").frame
    loss = [(2, "train", 4.0, 2), (10, "train", 1.0, 1), (4, "forward", 2.5, 1), (10, "eval", None, 1)]
    same(rows(frame(training.LOSS, 0)), loss)
    assert rows(frame(training.PARTS, 0)) == [("train", 2), ("eval_b", 1)]
    at = {name: i / 100 for i, name in enumerate(HEALTH)}
    columns = ("step", "layer", *HEALTH)
    for name, steps in (("train", (2, 10)), ("eval_b", (10,))):
        expected = [(s, f"decoder {r}", *(s + r / 10 + at[n] for n in HEALTH)) for s in steps for r in (0, 1)]
        same(rows(frame(training.HEALTH, 0, name), *columns), expected)


def test_what_another_capacity_costs() -> None:
    columns = ["ratio", "order", "dropped_share", "dropped_weight", "unrouted"]
    lines = [(1.0, "vanilla", 0.2, 0.1, 0.0), (1.0, "vanilla", 0.4, 0.3, 0.0), (1.0, "batch prioritized", 0.3, 0.04, 0.1),
             (0.5, "vanilla", 0.9, 0.9, 0.9), (0.5, "batch prioritized", 0.8, 0.8, 0.8)]  # fmt: skip
    assert part("parts.load.capacity").said(pd.DataFrame(lines, columns=columns)) == (
        "With room for even load only, 30 % of the assignments would be dropped, carrying 20 % of the weight in the tokens' "
        "order and 4 % with the surest first."
    )


def test_bars_whiskers_and_the_rule() -> None:
    """In per cent of the largest of values, upper ends and chance."""
    frame = pd.DataFrame({"x": ["a", "b"], "y": [0.25, 0.1], "low": [0.2, np.nan], "high": [0.5, np.nan], "n": [3, 1234]})
    html = bars.drawn(frame, "x", "y", "low", "high", 0.3, "T", format=".0%", tooltip=["n"])
    assert html.count('<i style="width:50.00%"></i><u style="left:40.00%;width:60.00%"></u><s style="left:60.00%"></s>') == 1
    assert html.count('<i style="width:20.00%"></i><s style="left:60.00%"></s>') == 1
    assert "95 % 20 % to 50 %; n 3" in html
    assert "dashed: chance, 30 %" in html
    assert bars.said(0.5, ".2f") == "0.50"
    assert bars.said(1234, "") == "1,234"


def unpacked(packed: tuple[str, str]) -> list[float | None]:
    kind, text = packed
    found = np.frombuffer(base64.b64decode(text), f"<{kind}").tolist()
    return [None if v != v else v for v in found]


def test_cells_of_a_heat_map() -> None:
    """Layers go up, experts to the right; a cell without a row is empty; colours are centred on chance."""
    frame = pd.DataFrame(
        {"layer": [1, 1, 2, 3], "expert": [0, 2, 1, 0], "share": [0.1, 0.2, 0.3, 0.4], "n": [1, 2, 3, 1 << 25]}
    )
    data = part("components.heat_map").data_of(
        frame, "expert", "layer", "share", "T", 0.25, format=".0%", tooltip=["n", "share"]
    )
    assert (data["x"], data["y"], data["keys"]) == (["0", "1", "2"], ["3", "2", "1"], [[0, 1, 2], [3, 2, 1]])
    cells = unpacked(data["values"])
    assert cells == pytest.approx([0.4, None, None, None, 0.3, None, 0.1, None, 0.2])
    assert [(name, form, unpacked(packed)) for name, form, packed in data["more"]] == [
        ("n", "", [float(1 << 25), None, None, None, 3, None, 1, None, 2])
    ]
    assert data["subtitle"] == "neutral colour: chance, 25 %"
    low, middle, high = data["span"]
    assert (middle, low <= 0.1, high >= 0.4) == (0.25, True, True)


@pytest.mark.parametrize(
    ("number", "words", "per_cent"),
    [(None, "–", "–"), (float("nan"), "–", "–"), (0.1234, "0.123", "12.3 %"), (999, "999", "9.99e+04 %"),
     (1000, "1 k", "1e+05 %"),
     (1234567, "1.23 M", "1.23e+08 %"), (2e9, "2 G", "2e+11 %"), (-1500, "-1.5 k", "-1.5e+05 %")],
)  # fmt: skip
def test_numbers_in_words(number: float | None, words: str, per_cent: str) -> None:
    assert (part("wording").count(number), part("wording").share(number)) == (words, per_cent)


def test_part_of_a_large_run() -> None:
    """Nothing below a million decisions; then, from one and a half times as many tokens on, whole sequences up to that many."""
    sampling = part("queries.sampling")
    large = {"run": 3, "decisions": sampling.EXACT + 1}
    assert sampling.filter_sql({**large, "tokens": 150}, 200, 2) == ("", 1.0)
    assert sampling.filter_sql({**large, "decisions": sampling.EXACT, "tokens": 151}, 200, 2) == ("", 1.0)
    sql, kept = sampling.filter_sql({**large, "tokens": 151}, 200, 2)
    assert kept == pytest.approx(100 / 151)
    assert "where run = 3" in sql
    assert "before < 100)" in sql


def test_parameters_are_written_into_the_query() -> None:
    filled = part("parts.figures").filled
    assert filled(" a = ? and b = ? and c = ?", [1, "it's", None]) == "a = 1 and b = 'it''s' and c = null"
