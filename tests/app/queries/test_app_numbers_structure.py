"""What the Structure, Tokens and Dimensionality pages count; against a recount of every decision."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import part, rows, same, view
from recounted import EXPERTS, Truth, entropy, ran

pytestmark = pytest.mark.usefixtures("recounted_shown")
TRUTH = Truth()
RUN = {"run": 0, "tokens": len(TRUTH.tokens) // 2, "model": 0, "capture": None}


def layer_of(router: int) -> Any:
    return next(x for x in part("parts.pickers").layers(0) if x.router == router)


def test_layers_are_named_and_even() -> None:
    found = [
        (x.label, x.router, x.layer, x.stack, x.experts, x.top_k, x.group, x.even) for x in part("parts.pickers").layers(0)
    ]
    decoder = [(f"decoder {r - 1}", r, r - 1, "decoder", 4, 2, "decoder", 0.25) for r in (1, 2, 3)]
    assert found == [*decoder, ("encoder 0", 0, 0, "encoder", 4, 1, "encoder", 0.25)]


@pytest.mark.parametrize("counted", ["asked", "ran"])
def test_flow(counted: str) -> None:
    """Every ribbon of two layers that follow each other, and the tokens of the layer that it leaves."""
    expected = []
    for router in (1, 2):
        one, two = (
            {d.of.token: d.first for d in TRUTH.of(0, r) if counted == "asked" or not d.chosen[0][2]}
            for r in (router, router + 1)
        )
        pairs = Counter((one[t], two[t]) for t in one.keys() & two.keys())
        every = sum(pairs.values())
        expected += [(router, a, router + 1, b, n, every) for (a, b), n in pairs.items()]

    def flow(router: int) -> pd.DataFrame:
        sql, params = view("structure").flow_query(0, layer_of(router), counted)
        return part("queries.store_access").frame(sql, *params)

    found = flow(1)
    same(sorted(rows(found)), sorted(expected))
    assert [n for r, *_, n, _ in rows(found) if r == 1] == sorted((row[4] for row in expected if row[0] == 1), reverse=True)
    assert set(flow(2)["layer"]) == {2}
    assert flow(3).empty


@pytest.mark.parametrize("counted", ["asked", "ran"])
def test_co_activation(counted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [d.ran if counted == "ran" else [e for e, _, _ in d.chosen] for d in TRUTH.of(0, 2)]
    pairs = Counter((a, b) for r in here for a in r for b in r if a != b)
    expected = [(a, b, n, n / sum(a in r for r in here)) for (a, b), n in pairs.items()]
    structure, told = view("structure"), []
    monkeypatch.setattr(structure.figures, "heat", lambda frame, *_, **look: told.append((frame, look["limits"])))
    structure.together.__wrapped__(RUN, layer_of(2), counted)
    (frame, limits) = told[0]
    same(rows(frame, "expert", "other", "n", "share"), sorted(expected))
    assert limits == (0.0, pytest.approx(2 / 3))  # to twice chance, whatever the largest share is


def test_chance_of_co_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the other three experts is the second."""
    structure, told = view("structure"), {}
    monkeypatch.setattr(structure.figures, "heat", lambda *_, **look: told.update(look))
    structure.together.__wrapped__(RUN, layer_of(2), "ran")
    assert told["chance"] == pytest.approx(1 / 3)


def ways() -> dict[tuple[str, str], int]:
    """{(path, document): tokens}: first choices, whether they ran or were dropped."""
    found: dict[int, list[str]] = {}
    home = {d.of.token: d.of.document for d in TRUTH.of(0, stack="decoder")}
    for d in sorted(TRUTH.of(0, stack="decoder"), key=lambda d: (d.of.token, d.layer)):
        found.setdefault(d.of.token, []).append(str(d.first))
    return Counter((" → ".join(way), home[token]) for token, way in found.items())


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the interval of every share over documents, by its residuals."""
    documents, counts = ways(), Counter()
    for (path, _), n in documents.items():
        counts[path] += n
    every, effective = sum(counts.values()), float(2 ** entropy(list(counts.values())))
    sizes = {d: sum(n for (_, x), n in documents.items() if x == d) for _, d in documents}
    expected = []
    for path, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])):
        off = sum((documents.get((path, d), 0) - n / every * size) ** 2 for d, size in sizes.items())
        half = 1.96 * np.sqrt(6 / 5 * off) / every
        expected.append((path, n, n / every, max(n / every - half, 0), n / every + half, len(counts), effective, 6))
    structure, shown = view("structure"), []
    sql = structure.PATHS.format(few="", half=structure.HALF, low=structure.LOW, high=structure.HIGH)
    alone = 1.0
    for router in (1, 2, 3):
        alone *= 2 ** entropy(list(Counter(d.first for d in TRUTH.of(0, router)).values()))
    found = part("queries.store_access").frame(sql, 0, "decoder")
    same(rows(found), [(*row, alone) for row in expected[:25]])
    monkeypatch.setattr(structure.panels, "cards", shown.extend)
    monkeypatch.setattr(structure.url_state, "row", lambda *_, **__: None)
    found = part("queries.store_access").frame(structure.ONE, 0, "decoder", expected[0][0])
    way = [d.first for d in sorted(TRUTH.of(0, stack="decoder"), key=lambda d: d.layer) if d.of.token == found["token"].iloc[0]]
    assert " → ".join(map(str, way)) == expected[0][0]
    structure.paths.__wrapped__(RUN, layer_of(2))
    top, share = expected[0], part("wording").share
    assert [card[:3] for card in shown] == [
        ("Different paths", f"{len(counts)}", f"taken by {every} tokens"),
        ("Paths in effect", f"{effective:.0f}", "exp of their entropy; few tokens make it small"),
        ("Commonest", f"{top[2]:.2%}", f"{top[0]}; {share(top[3])} to {share(top[4])} (95 % over documents)"),
        ("If layers were independent", f"{alone:,.0f}", "paths in effect, if layers chose by these loads alone"),
    ]


def test_tokens_with_their_routes() -> None:
    frame, params = part("queries.token_routes").tokens(3, layer_of(2))
    here = {d.of.token: d for d in TRUTH.of(0, 2) if d.of.sequence == 3}
    expected = [
        (t.token, t.position, t.text, t.generated, [e for e, _, _ in here[t.token].chosen],
         [w for _, w, _ in here[t.token].chosen],
         [x for _, _, x in here[t.token].chosen], here[t.token].entropy, here[t.token].margin, f"upos {t.upos}")
        for t in TRUTH.tokens if t.sequence == 3
    ]  # fmt: skip
    columns = ("token", "position", "text", "generated", "experts", "weights", "drops", "entropy", "margin", "labels")
    assert rows(frame, *columns) == expected
    assert params == [2, expected[0][0], expected[-1][0], 3]


def test_route_of_one_token() -> None:
    token = next(t for t in TRUTH.tokens if t.sequence == 3 and t.position == 20)
    mine = [d for d in TRUTH.of(0) if d.of.token == token.token]
    routes, frame = part("queries.token_routes"), part("queries.store_access").frame
    expected = [
        ("decoder", d.layer, d.router, 4, 0, rank, e, w, lost, None) for d in mine for rank, (e, w, lost) in enumerate(d.chosen)
    ]
    assert rows(frame(routes.ROUTE, token.token, 0)) == expected
    sure = [(d.layer, d.router, 0, d.entropy, d.margin, d.log_sum_exp, len(d.ran), "decode") for d in mine]
    assert rows(frame(routes.SURE, token.token, 0)) == sure
    about = rows(frame(routes.ABOUT, token.token, 0))[0]
    assert about[:5] == (token.token, 3, 20, "text", token.text)
    assert about[8:12] == (True, False, token.document, "decoder")
    assert sorted(about[12].split(" · ")) == [f"domain: {token.domain}", f"upos: {token.upos}"]


def test_sequences_by_label_and_text() -> None:
    routes = part("queries.token_routes")
    decoders = {t.sequence: t for t in TRUTH.tokens if t.run == 0 and t.stack == "decoder"}
    law = [s for s, t in decoders.items() if t.domain == "law"]
    assert [row["sequence"] for row in routes.sequences(0, "decoder", ("domain", "law"), "")] == law
    assert [row["sequence"] for row in routes.sequences(0, "decoder", None, "d1")] == [
        s for s, t in decoders.items() if t.document == "d1"
    ]
    mats = {t.sequence for t in TRUTH.tokens if t.run == 0 and t.vocab == 5}
    assert [row["sequence"] for row in routes.sequences(0, "decoder", None, "mat")] == [s for s in decoders if s in mats]
    assert routes.sequences(0, "decoder", None, "mat'") == []
    (partner,) = routes.partners(routes.sequences(0, "decoder", None, "")[1], 0)
    assert (partner["sequence"], partner["stack"], partner["source_row"]) == (2, "encoder", 1)


def test_sample_of_the_map() -> None:
    """Tokens with the weight of every expert that ran for them."""
    sql, kept = part("parts.signature_maps").sample_sql(RUN)
    found = rows(part("queries.store_access").frame(sql, 0, "decoder", 10_000, 0))
    expected = [(d.of.token, d.router, e, w) for d in TRUTH.of(0, stack="decoder") for e, w, lost in d.chosen if not lost]
    assert (sorted(found), kept) == (sorted(expected), 1.0)
    assert len({t for t, *_ in rows(part("queries.store_access").frame(sql, 0, "decoder", 20, 0))}) <= 20


def test_commonest_names() -> None:
    names = pd.Series(["a"] * 3 + ["b"] * 2 + ["c", None])
    assert part("parts.signature_maps").few_names(names, 2).tolist() == ["a", "a", "a", "b", "b", "other", "other"]
    assert part("parts.signature_maps").few_names(pd.Series(["a", None, "b"])).tolist() == ["a", "other", "b"]


def test_colours_of_tokens() -> None:
    """Up to eight experts have colours of their own, else the busiest; values are shares of the largest."""
    look = part("components.colored_tokens")
    tokens = pd.DataFrame({"experts": [[1, 0], [1, 2], [], [3, 1]], "weights": [[0.75, 0.25], [1.0, 0.0], [], [0.5, 0.5]],
                           "entropy": [0.5, 1.0, np.nan, 0.25], "margin": [-0.1, 0.2, 0.4, 0.0]})  # fmt: skip
    first = look.paint(tokens, "first", 4)
    assert first["group"] == ["expert 1", "expert 1", "none", "expert 3"]
    assert [(x["expert"], x["n"]) for x in first["legend"]] == [("expert 1", 2), ("expert 3", 1), ("none", 1)]
    one = look.paint(tokens, "expert", 4, 1)
    assert (one["alpha"], one["group"]) == ([52, 70, 0, 35], ["expert 1", "expert 1", "none", "expert 1"])
    assert look.paint(tokens, "entropy", 4)["alpha"] == [35, 70, 0, 18]
    assert look.paint(tokens, "margin", 4)["alpha"] == [0, 35, 70, 0]
    many = look.colours([9] * 3 + [2] * 2 + list(range(10, 20)), 64)
    assert (len(many), set(many) >= {2, 9}) == (7, True)


def test_labels_of_a_control() -> None:
    panels = part("parts.dimension_panels")
    assert panels.whose(RUN, "router logits, control run 7") == 7
    assert panels.whose(RUN, "router logits") == 0
    assert (panels.rest("states, control run 7"), panels.rest("states")) == (", control", "")


def test_shares_of_all_experts_sum_to_one() -> None:
    frame = part("queries.store_access").frame(part("queries.effects").USE, 0)
    expected = []
    for router in range(4):
        here = TRUTH.of(0, router)
        mass = [sum(w for d in here for x, w, lost in d.chosen if x == e and not lost) for e in range(EXPERTS)]
        expected += [
            (router, e, ran(here, e) / ran(here), mass[e] / sum(mass), mass[e] / ran(here, e) if ran(here, e) else None)
            for e in range(EXPERTS)
        ]
    same(sorted(rows(frame), key=lambda row: row[:2]), expected)
