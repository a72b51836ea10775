"""Clusters of documents by their words, where no label says what they mean."""

from pathlib import Path

import numpy as np
import pytest
import synthetic

from moescope import analyses
from moescope.analyses._shared import topics

GIVEN = "I(expert; label | token) (bits)"


def test_two_topics_are_two_clusters() -> None:
    rng = np.random.default_rng(0)
    document = np.repeat(np.arange(24), 50)
    words = rng.integers(0, 30, 1200) + 30 * (rng.random(1200) < np.where(document % 2, 0.8, 0.2))
    found = topics.clusters(words, document)
    assert found is not None
    of_topic = [set(found[document % 2 == topic]) for topic in (0, 1)]
    assert not of_topic[0] & of_topic[1]
    assert topics.clusters(words[:500], document[:500]) is None  # ten documents


@pytest.mark.parametrize("follows", [True, False])
def test_routing_by_topic_is_found_and_routing_by_chance_is_not(
    follows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words' topic, of which the store says nothing, moves expert 2, beyond what each word does; or it moves nothing."""
    plain = synthetic.inputs

    def topical(*asked: object, **more: object) -> synthetic.Inputs:
        read = plain(*asked, **more)
        other = np.random.default_rng(1).random(len(read.document)) < 0.25
        read.vocab_id = read.vocab_id % 20 + 20 * ((read.document % 2 == 1) ^ other)
        return read

    def plant(read: synthetic.Inputs, layer: int, logits: np.ndarray) -> None:
        logits[read.document % 2 == 1, 2] += 2.0 * follows

    monkeypatch.setattr(synthetic, "inputs", topical)
    synthetic.make(tmp_path / "x.duckdb", plant, documents=32, layers=(0, 1), label="shelf")
    answer = analyses.run("syntax", tmp_path / "x.duckdb", given="token")
    rows = answer.figures(GIVEN, subset="cluster", estimator="corrected")
    assert len(rows) == 2
    assert (rows["null"] == "labels permuted over documents").all()
    assert ((rows["q"] < 0.01) == follows).all()
    assert any("made here" in note for note in answer.notes)


def test_labels_of_the_data_come_first(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "x.duckdb", documents=32, layers=(0,))
    answer = analyses.run("syntax", tmp_path / "x.duckdb", given="token")
    assert set(answer.figures(GIVEN)["subset"]) == {"deprel", "domain"}  # a word has one upos there
