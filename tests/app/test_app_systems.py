"""Pages of what other systems say: conditions, depth, steps of a denoiser, leaves of trees."""

import json
from pathlib import Path
from typing import Any

import pytest
from pages import opened, part
from streamlit.testing.v1 import AppTest
from told_systems import denoiser, recursions, tree


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("systems")
    return {make.__name__: make(folder / f"{make.__name__}.duckdb") for make in (denoiser, recursions, tree)}


@pytest.fixture
def shown(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a page over a store; what is opened shows no error."""

    return lambda name, view, **query: opened(stores[name], view, monkeypatch, **query)


def said(test: AppTest) -> str:
    return " ".join(m.value for m in test.get("html") if isinstance(m.value, str))


PAGES = [(view, name) for view in ("conditions", "depth", "tokens", "load", "structure", "runs", "experts") for name in
         ("denoiser", "recursions", "tree")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("view", "name"), PAGES)
@pytest.mark.sampled(8)
def test_pages_show_every_system(view: str, name: str, shown: Any) -> None:
    shown(name, view)


def test_conditions_table(shown: Any) -> None:
    """Rows by hand: timesteps in their order, load of each expert, and its share at all of them."""
    test = shown("denoiser", "conditions")
    assert test.selectbox(key="box-condition").options == ["timestep (3 values)"]
    frame = test.dataframe[0].value
    loads = {(100, 2): 1.0, (100, 0): 0.0, (100, 1): 0.0, (500, 1): 0.5, (500, 2): 0.25, (500, 0): 0.25,
             (900, 0): 0.5, (900, 1): 0.25, (900, 2): 0.25}  # fmt: skip
    overall = {0: 0.25, 1: 0.25, 2: 0.5}
    wanted = [(str(t), e, loads[t, e], overall[e], 24, 6) for t in (100, 500, 900) for e in range(3)]
    assert [tuple(r) for r in frame[["condition", "expert", "share", "overall", "n", "units"]].values.tolist()] == wanted
    assert frame["low"].notna().all()
    sites = test.dataframe[1].value
    assert sites[["kind", "block_type", "routers", "found"]].values.tolist() == [["timestep", "ffn", 1, 1]]


def test_conditions_difference(shown: Any) -> None:
    shown("denoiser", "conditions", difference="1", **{"tables-conditions": "true"})


NOTHING = {
    "conditions": ("tree", "The forward passes of this run were told no condition"),
    "depth": ("tree", "No router of this run decides about depth"),
}


@pytest.mark.parametrize("view", NOTHING)
def test_nothing_to_show_is_one_sentence(view: str, shown: Any) -> None:
    name, words = NOTHING[view]
    test = shown(name, view)
    assert words in said(test)
    assert len(test.dataframe) == 0


def test_depth_tables(shown: Any) -> None:
    test = shown("recursions", "depth")
    frame = test.dataframe[0].value
    assert frame[["subset", "value", "chance", "n", "units"]].values.tolist() == [
        ["upos=DET", 0, 1, 6, 6], ["upos=NOUN", 1, 1, 12, 6], ["upos=VERB", 2, 1, 6, 6],
        ["position=0", 0, 1, 6, 6], ["position=1–3", pytest.approx(4 / 3), 1, 18, 6]]  # fmt: skip


def test_depth_of_every_token(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(stores["recursions"]))
    frame = part("queries.depths").tokens(0, 1, 0, None, {0: "layer 3 block.0", 1: "layer 3 block.1"})
    one = ["layer 3 block.0"]
    assert frame[["token", "text", "depth", "considered", "experts", "labels"]].values.tolist() == [
        [4, "w0", 0, 2, [], "upos DET"], [5, "w1", 1, 2, one, "upos NOUN"],
        [6, "w2", 2, 2, [*one, "layer 3 block.1"], "upos VERB"], [7, "w3", 1, 2, one, "upos NOUN"]]  # fmt: skip
    data = part("components.colored_tokens").data_of(frame, {}, noun="block")
    assert json.loads(json.dumps(data))["weights"] == [[], [1.0], [1.0, 1.0], [1.0]]  # plain numbers: a browser gets no others
    colour = part("components.colored_tokens").paint_depth([0.0, 1.0, 2.0, float("nan")], 2)
    assert (colour["alpha"], colour["group"]) == ([0, 35, 70, 0], ["depth 0", "depth 1", "depth 2", "not looked at"])


def test_steps_are_named_by_their_timestep(shown: Any) -> None:
    """The last step at first; another one by the URL or the picker."""
    test = shown("denoiser", "tokens")
    box = test.selectbox(key="box-step")
    assert (box.options, box.value) == (["timestep 900", "timestep 500", "timestep 100"], 2)
    box.set_value(0).run()
    assert test.query_params["step"] == "0"
    shown("denoiser", "tokens", step="1", token="5")
    shown("denoiser", "tokens", step="nonsense", token="999")


def test_no_step_where_every_token_is_looked_at_once(shown: Any) -> None:
    assert "box-step" not in [box.key for box in shown("recursions", "tokens").selectbox]


@pytest.mark.parametrize(("forward", "experts", "entropy"), [(0, [0, 1, 2, 0], 0.1), (1, [1, 2, 0, 1], 0.2), (2, [2] * 4, 0.3),
                                                              (None, [2] * 4, 0.3)])  # fmt: skip
def test_patches_of_one_step(
    forward: int | None, experts: list[int], entropy: float, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESCOPE_STORE", str(stores["denoiser"]))
    layer = part("queries.layers").Layer("layer 0", 0, 0, "decoder", 3, 1)
    frame = part("queries.token_routes").tokens(1, layer, forward=forward)[0]
    assert frame[["token", "y", "x", "experts", "entropy"]].values.tolist() == [
        [4 + p, p // 2, p % 2, [experts[p]], pytest.approx(entropy)] for p in range(4)]  # fmt: skip
    path, sure, _ = part("queries.token_routes").way(5, 0, forward)
    assert path["expert"].tolist() == ([experts[1]] if forward is not None else [1, 2, 2])
    assert len(sure) == (1 if forward is not None else 3)


def test_leaves(shown: Any) -> None:
    """Weights of six tokens: 3/8 and 3/8 on the left, 1/4 on the right."""
    test = shown("tree", "load")
    assert "Leaves of the tree" in said(test)
    frame = test.dataframe[0].value
    assert frame.values.tolist() == [
        [0, "0 → 0", 6, 2.25, 0.375, 0.375], [0, "0 → 1", 6, 2.25, 0.375, 0.375], [0, "1", 6, 1.5, 0.25, 0.25]]  # fmt: skip
    assert "Leaves of the tree" not in said(shown("recursions", "load"))
