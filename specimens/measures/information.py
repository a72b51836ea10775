"""Mutual information between a label and the top-1 expert, with its two zero lines and an interval over documents."""

from __future__ import annotations

import numpy as np


def bits(table: np.ndarray) -> np.ndarray:
    """Plug-in mutual information in bits of contingency tables (..., labels, experts)."""
    joint = table / table.sum((-2, -1), keepdims=True)
    expected = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    ratio = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 0)
    return (joint * np.log2(ratio)).sum((-2, -1))


def entropy(counts: np.ndarray) -> float:
    """Entropy in bits of a distribution given by counts."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def tables(document: np.ndarray, label: np.ndarray, expert: np.ndarray, experts: int) -> np.ndarray:
    """Counts (documents, labels, experts) of tokens."""
    found = np.zeros((document.max() + 1, label.max() + 1, experts))
    np.add.at(found, (document, label, expert), 1)
    return found


def information(
    document: np.ndarray, label: np.ndarray, expert: np.ndarray, experts: int, *, by_document: bool, seed: int = 0
) -> dict[str, object]:
    """I(label; expert) in bits, the same with labels shuffled (mean of 20), and a 95 % bootstrap over documents.

    by_document: the label belongs to the document (a domain), so documents are shuffled and not tokens.
    """
    random = np.random.default_rng(seed)
    counts = tables(document, label, expert, experts)
    drawn = random.integers(0, len(counts), (300, len(counts)))
    weights = np.stack([np.bincount(row, minlength=len(counts)) for row in drawn]).astype(float)
    low, high = np.quantile(bits(np.einsum("rd,dle->rle", weights, counts)), (0.025, 0.975))
    null = [float(bits(shuffled(document, label, expert, experts, random, by_document))) for _ in range(20)]
    return {
        "bits": round(float(bits(counts.sum(0))), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "shuffled": round(float(np.mean(null)), 4),
        "label_entropy": round(entropy(counts.sum((0, 2))), 4),
    }


def shuffled(
    document: np.ndarray, label: np.ndarray, expert: np.ndarray, experts: int, random: np.random.Generator, by_document: bool
) -> np.ndarray:
    """One contingency table with the labels permuted over documents or over tokens."""
    if by_document:
        of_document = np.zeros(document.max() + 1, dtype=int)
        of_document[document] = label
        label = random.permutation(of_document)[document]
    else:
        label = random.permutation(label)
    return tables(np.zeros_like(document), label, expert, experts)[0]
