"""Which labels a question about form and meaning is asked of, and under which conditions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import AnalysisError
from ...statistics.conditional import Information, information
from ...statistics.labelled import Labelled, labelled
from . import topics
from .arrays.token_table import FORM, MEANING, Kind, Tokens

GIVEN = ("nothing", "token", "token and document", "token and upos")
MOST_LABELS = 500


@dataclass
class Question:
    """One kind of label under one condition, and what every router said."""

    kind: Kind
    given: str
    tokens: Labelled
    found: list[tuple[dict[str, Any], Information]]


def choose(read: Tokens, kinds: str | None, notes: list[str]) -> list[Kind]:
    """The kinds asked for, or all of form and meaning; AnalysisError where there are none."""
    have = ", ".join(f"{kind} ({n})" for kind, n in read.kinds.items()) or "none"
    asked = [k.strip() for k in kinds.split(",")] if kinds else [k for k in (*FORM, *MEANING) if k in read.kinds]
    if missing := [kind for kind in asked if kind not in read.kinds]:
        raise AnalysisError(
            f"run {read.scope.run} has no label {missing[0]!r} with two or more values (it has: {have}); trace data that "
            "has it, such as CoNLL-U"
        )
    if not asked:
        raise AnalysisError(
            f"run {read.scope.run} has no labels of form ({', '.join(FORM)}) or meaning ({', '.join(MEANING)}); it "
            f"has: {have}; name some with `kinds`, or trace data with labels, such as CoNLL-U"
        )
    if read.made is not None and topics.NAME in asked:
        notes.append(topics.SAID.format(read.kinds[topics.NAME]))
    found = [read.kind(name) for name in asked]
    for side in ("form", "meaning"):
        if not any(kind.side == side for kind in found):
            notes.append(f"No label of {side} is here, so that form and meaning cannot be compared.")
    many = [k.name for k in found if len(k.names) > MOST_LABELS]
    notes += [f"{name} has more than {MOST_LABELS} values, more than tokens can fill, and is left out." for name in many]
    return [k for k in found if k.name not in many and k.names]


def ask(read: Tokens, kind: Kind, given: list[str], draws: int, notes: list[str]) -> list[Question]:
    """The question of one kind under every condition that applies to it, put to every router."""
    asked = []
    for condition in given:
        stratum = given_stratum(read, kind, condition)
        if stratum is None:
            continue
        shared = labelled(kind.code, stratum, read.document, kind.block, draws)
        if not len(shared.rows):
            notes.append(
                f"Given {condition}, no token has two values of {kind.name}: nothing can be said there; trace more text."
            )
            continue
        found = [(where, information(shared, expert)) for where, expert in read.first()]
        asked.append(Question(kind, condition, shared, found))
    return asked


def beyond(held: str) -> str:
    """What is held constant where a finding is claimed, for labels that hold for a whole `held`.

    A topic moves the labels of a document's tokens and their routing alike: given the token alone, that looks like routing by
    label. A label of whole documents cannot be told from their topic: there it is the token, with documents dealt anew.
    """
    return "token" if held == "document" else "token and document"


def contrast(given: str, held: str) -> str:
    """What is to be said of the null where topics are not held constant, so that a small p is no finding."""
    return "" if given == beyond(held) else "; for contrast: topics are not held constant"


def name_of(given: str) -> str:
    """The figure's name."""
    return f"I(expert; label | {given}) (bits)" if given != "nothing" else "I(expert; label) (bits)"


def headline(frame: pd.DataFrame) -> pd.DataFrame:
    """The corrected figures that a finding may be claimed from: of every kind those with what `beyond` says held constant."""
    rows = frame[frame["estimator"] == "corrected"]
    inside = rows[rows["name"] == name_of("token and document")]
    whole = rows[(rows["name"] == name_of("token")) & rows["null"].str.contains("over documents", regex=False)]
    return pd.concat([inside, whole]).sort_index()


def given_stratum(read: Tokens, kind: Kind, condition: str) -> np.ndarray | None:
    """(tokens,) what is held constant; None where the condition does not apply to the kind."""
    if condition == "nothing":
        return np.zeros(len(read), dtype=np.int64)
    token = read.vocab_id.astype(np.int64)
    if condition == "token":
        return token
    if condition == "token and document":
        return None if kind.held == "document" else token * (read.document.max() + 1) + read.document
    if "upos" not in read.kinds or kind.side != "meaning" or kind.held == "document":
        return None
    return token * 64 + read.kind("upos").code
