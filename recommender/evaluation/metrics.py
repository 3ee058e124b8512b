"""Ranking metrics of one list, fair to ties: equal scores take their expected value over all orders of the tie.

A stable sort would pay a ranker that gives everything the same score for the order the list came in (measured: one
stable argsort lifted an MRR from .490 to .600 "without the position"). Relevance is binary: anything above 0 counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def ndcg(scores: NDArray[Any], relevance: NDArray[Any], *, k: int = 10) -> float:
    """Expected NDCG@k (Jarvelin and Kekalainen 2002, log2 discount, binary gain); 0 where nothing is relevant.

    >>> ndcg(np.array([3., 2., 1.]), np.array([0, 1, 0]), k=10)
    0.6309297535714575
    >>> ndcg(np.array([1., 1.]), np.array([0, 1])) == (1 + 0.6309297535714575) / 2
    True
    """
    gains = _gains(relevance)
    discounts = 1.0 / np.log2(np.arange(2, min(k, len(gains)) + 2))
    ideal = float(discounts[: int(gains.sum())].sum())
    if ideal == 0.0:
        return 0.0
    expected = np.concatenate([np.full(size, hits / size) for _, size, hits in _ties(scores, gains)])
    return float(expected[: len(discounts)] @ discounts) / ideal


def mrr(scores: NDArray[Any], relevance: NDArray[Any], *, k: int | None = None) -> float:
    """Expected reciprocal rank of the first relevant item, 0 beyond rank k (None: the whole list).

    In a tie of n items with r relevant the first relevant one stands at place j with C(n-1-j, r-1) / C(n, r).

    >>> mrr(np.array([3., 2., 1.]), np.array([0, 1, 0]))
    0.5
    >>> mrr(np.array([1., 1.]), np.array([0, 1]))
    0.75
    """
    last = len(scores) if k is None else k
    for start, size, hits in _ties(scores, _gains(relevance)):
        if hits:
            places = range(min(size - hits + 1, max(last - start, 0)))
            chances = (comb(size - 1 - j, hits - 1) / (start + j + 1) for j in places)
            return sum(chances) / comb(size, hits)
    return 0.0


def hit_rate(scores: NDArray[Any], relevance: NDArray[Any], *, k: int = 20) -> float:
    """The chance that at least one relevant item stands among the first k.

    >>> hit_rate(np.array([1., 1., 1., 1.]), np.array([0, 1, 0, 0]), k=1)
    0.25
    """
    for start, size, hits in _ties(scores, _gains(relevance)):
        if hits:
            places = min(max(k - start, 0), size)
            return 1.0 - comb(size - places, hits) / comb(size, hits)
    return 0.0


def recall(scores: NDArray[Any], relevance: NDArray[Any], *, k: int = 20) -> float:
    """The expected share of the relevant items that stand among the first k; 0 where nothing is relevant.

    >>> recall(np.array([3., 2., 2.]), np.array([1, 1, 0]), k=2)
    0.75
    """
    ties = _ties(scores, _gains(relevance))
    within = sum(hits * min(max(k - start, 0), size) / size for start, size, hits in ties)
    return within / max(sum(hits for _, _, hits in ties), 1)


def by_query(
    metric: Metric, scores: NDArray[Any], relevance: NDArray[Any], groups: Sequence[int] | NDArray[np.int64]
) -> Doubles:
    """float64[queries]: `metric` of each list, where list q is the next `groups[q]` rows.

    >>> by_query(mrr, np.array([2., 1., 1., 2.]), np.array([1, 0, 1, 0]), [2, 2]).tolist()
    [1.0, 0.5]
    """
    ends = np.cumsum(np.asarray(groups))
    starts = ends - np.asarray(groups)
    return np.array([metric(scores[a:b], relevance[a:b]) for a, b in zip(starts, ends, strict=True)], np.float64)


def _gains(relevance: NDArray[Any]) -> NDArray[np.int64]:
    return (np.asarray(relevance) > 0).astype(np.int64)


def _ties(scores: NDArray[Any], gains: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The runs of equal scores, best first: (places before it, its size, its relevant items). NaN ranks last."""
    values = np.where(np.isnan(scores), -np.inf, np.asarray(scores, np.float64))
    _, run, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(run, weights=gains, minlength=len(sizes)).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    return list(zip(starts.tolist(), sizes.tolist(), hits.tolist(), strict=True))
