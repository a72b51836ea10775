"""The views on the hand-made store, against answers worked out by hand."""

from collections.abc import Iterator

import handmade
import pytest

import moescope


@pytest.fixture(scope="module", params=["unfinished", "finished"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[moescope.Store]:
    path = tmp_path_factory.mktemp("views") / "run.duckdb"
    writer = handmade.written(path, close=False)
    if request.param == "finished":
        writer.close(handmade.FINAL, {})
    with moescope.open(path) as opened:
        yield opened


ANSWERS = {
    # router 0: six assignments of which one was dropped; expert 2 is dead
    "select router, layer, expert, assignments, first, dropped, weight, share from expert_load order by 1, 3": [
        (0, 1, 0, 4, 2, 0, 2.5, 4 / 7), (0, 1, 1, 3, 2, 1, 1.25, 3 / 7), (0, 1, 2, 0, 0, 0, 0.0, 0.0),
        (1, 4, 0, 2, 0, 0, 0.75, 0.25), (1, 4, 1, 2, 0, 0, 0.25, 0.25), (1, 4, 2, 4, 4, 0, 3.0, 0.5),
    ],
    # entropy of (4/7, 3/7) and of (1/4, 1/4, 1/2); evenly it would be log2(3)
    "select router, experts, assignments, dropped_share, round(entropy_bits, 4), round(max_bits, 4), round(normalized, 4), "
    "round(max_violation, 4), busiest, round(busiest_share, 4), dead from load_balance order by 1": [
        (0, 3, 7, 1 / 8, 0.9852, 1.585, 0.6216, 0.7143, 0, 0.5714, 1),
        (1, 3, 8, 0.0, 1.5, 1.585, 0.9464, 0.5, 2, 0.5, 0),
    ],
    "select router, decisions, unrouted, routing_entropy, margin, z_loss, nonfinite, dead from router_summary order by 1": [
        (0, 4, 0, 0.625, 0.375, 2.5, 0, 1), (1, 4, 0, 1.0, 0.375, 12.5, 0, 0),
    ],
    # the dropped second choice of token 2 makes no pair
    "select router, expert, other, n, round(share, 4) from coactivation order by all": [
        (0, 0, 1, 3, 0.75), (0, 1, 0, 3, 1.0), (1, 0, 2, 2, 1.0), (1, 1, 2, 2, 1.0), (1, 2, 0, 2, 0.5), (1, 2, 1, 2, 0.5),
    ],
    "select layer, next_layer, expert, next_expert, n, share from transitions order by all": [
        (1, 4, 0, 2, 2, 1.0), (1, 4, 1, 2, 2, 1.0),
    ],
    "select router, label, expert, assignments, round(share, 4), round(overall, 4) from label_load order by all": [
        (0, "code", 0, 2, 0.6667, 0.5714), (0, "code", 1, 1, 0.3333, 0.4286), (0, "code", 2, 0, 0.0, 0.0),
        (0, "prose", 0, 2, 0.5, 0.5714), (0, "prose", 1, 2, 0.5, 0.4286), (0, "prose", 2, 0, 0.0, 0.0),
        (1, "code", 0, 1, 0.25, 0.25), (1, "code", 1, 1, 0.25, 0.25), (1, "code", 2, 2, 0.5, 0.5),
        (1, "prose", 0, 1, 0.25, 0.25), (1, "prose", 1, 1, 0.25, 0.25), (1, "prose", 2, 2, 0.5, 0.5),
    ],
    # two nouns: the first tokens of both sequences, of which the second one's second choice was dropped
    "select router, label, expert, assignments, round(share, 4), round(overall, 4) from token_label_load order by all": [
        (0, "NOUN", 0, 2, 0.6667, 0.6667), (0, "NOUN", 1, 1, 0.3333, 0.3333),
        (1, "NOUN", 0, 2, 0.5, 0.5), (1, "NOUN", 2, 2, 0.5, 0.5),
    ],
    "select expert, vocab_id, text, assignments, first, share, overall from vocab_load where router = 0 order by 1, 2": [
        (0, 5, "a", 2, 2, 2 / 3, 4 / 7), (0, 6, "b", 2, 0, 0.5, 4 / 7),
        (1, 5, "a", 1, 0, 1 / 3, 3 / 7), (1, 6, "b", 2, 2, 0.5, 3 / 7),
    ],
    "select forward, token, experts, layers from paths order by all": [
        (0, 0, [0, 2], [1, 4]), (0, 1, [1, 2], [1, 4]), (1, 2, [0, 2], [1, 4]), (1, 3, [1, 2], [1, 4]),
    ],
    "select phase, layer, token, sequence, position, vocab_id, text, rank, expert, dropped, document, domain from routing "
    "where router = 0 and sequence = 1 order by token, rank": [
        ("prefill", 1, 2, 1, 0, 5, "a", 0, 0, False, "d1", "code"), ("prefill", 1, 2, 1, 0, 5, "a", 1, 1, True, "d1", "code"),
        ("prefill", 1, 3, 1, 1, 6, "b", 0, 1, False, "d1", "code"), ("prefill", 1, 3, 1, 1, 6, "b", 1, 0, False, "d1", "code"),
    ],
    "select phase, layer, token, sequence, position, vocab_id, text, selected, log_sum_exp, entropy, margin, document, domain "
    "from routing_decisions where router = 0 and sequence = 1 order by token": [
        ("prefill", 1, 2, 1, 0, 5, "a", 1, 1.0, 0.5, 0.25, "d1", "code"),
        ("prefill", 1, 3, 1, 1, 6, "b", 2, 2.0, 0.75, 0.5, "d1", "code"),
    ],
    "select * from labels order by all": [
        (0, "domain", "prose", "sequence"), (0, "upos", "NOUN", "token"), (1, "domain", "prose", "sequence"),
        (2, "domain", "code", "sequence"), (2, "upos", "NOUN", "token"), (3, "domain", "code", "sequence"),
    ],
    "select token, position, text, document, domain from token_text order by 1": [
        (0, 0, "a", "d0", "prose"), (1, 1, "b", "d0", "prose"), (2, 0, "a", "d1", "code"), (3, 1, "b", "d1", "code"),
    ],
    "select router, token, selected, log_sum_exp, entropy, margin from decisions where forward = 1 order by 1, 2": [
        (0, 2, 1, 1.0, 0.5, 0.25), (0, 3, 2, 2.0, 0.75, 0.5), (1, 2, 2, 3.0, 1.0, 0.5), (1, 3, 2, 4.0, 1.0, 0.25),
    ],
    "select * from decided": [],
}  # fmt: skip


@pytest.mark.parametrize("query", ANSWERS, ids=lambda q: q.partition("from ")[2].split()[0])
def test_answers(store: moescope.Store, query: str) -> None:
    assert store.rows(query) == [tuple(pytest.approx(v) if isinstance(v, float) else v for v in row) for row in ANSWERS[query]]


def test_every_view_was_asked(store: moescope.Store) -> None:
    others = {"ablation_effects", "training", "routes_2"}  # need rows of their own, see the tests of ablation and training
    others |= {"condition_load", "token_depth", "leaf_weight"}  # and of test_store_trees
    views = store.rows("select view_name from duckdb_views() where not internal and database_name = current_database()")
    tables = {n for (n,) in store.rows("select distinct table_name from duckdb_tables()")}
    asked = " ".join(ANSWERS) + " assignments"
    assert [name for (name,) in views if f"{name} " not in asked + " " and name not in tables | others] == []
