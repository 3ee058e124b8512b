"""What the extras of an answer cost, as ratios to scoring its candidates: `make bench ARGS="-k extras"`.

CPU of one thread, medians, taken turn about in one process: ratios hold on other machines, milliseconds do not.
"""

import time

import numpy as np
import pytest

from features.catalog import catalog
from recommender.ranker import LightGBMRanker
from recommender.reasons import Explainer
from recommender.recommend import Ranked, Sample
from recommender.selection import best_first, sampled
from recommender.served import pack
from recommender.shadow import rank_correlation, top_overlap
from tests.features.worlds import DOMAIN, SOURCES
from tests.recommender.boosters import make_booster, rows

CANDIDATES, SHOWN, ROUNDS = 200, 20, 15


def cpu_ms(calls):
    """{name: median CPU ms} of each call, turn about."""
    spans = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            spans[name].append((time.thread_time() - begun) * 1000)
    return {name: float(np.median(each)) for name, each in spans.items()}


@pytest.mark.parametrize("trees", [50, 200])
def test_what_the_extras_of_an_answer_cost(benchmark, trees):
    made = catalog(DOMAIN, sources=SOURCES)
    width = len(made.names)
    ranker = LightGBMRanker(make_booster(width, trees=trees, leaves=31), "v", "f", trees)
    matrix, items = rows(width, size=CANDIDATES), np.arange(CANDIDATES, dtype=np.uint64)
    scores = ranker.score(matrix)
    order = best_first(scores, items, query_id="q")
    shown, explainer = np.ascontiguousarray(matrix[order[:SHOWN]]), Explainer(made.names, made.categorical)
    ids = [f"item-{place}" for place in range(CANDIDATES)]

    def reasons():
        return explainer.explain(shown, ranker.contributions(shown), scores[order[:SHOWN]], top=3)

    def shadow():
        theirs = ranker.score(matrix)
        return top_overlap(order, best_first(theirs, items, query_id="q"), k=SHOWN), rank_correlation(scores, theirs)

    def served(rate):
        drawn, draws = sampled(items[order[SHOWN:]], rate=rate, query_id="q")
        rest = order[SHOWN:][drawn]
        sample = Sample([ids[place] for place in rest], scores[rest], matrix[rest], draws, rate)
        ranked = Ranked(
            "q", ids[:SHOWN], scores[order[:SHOWN]], ["new"] * SHOWN, "full", None, "v", "f", shown, sample=sample
        )
        return pack(ranked, user_id="u", ts_ms=1, event_age_ms=1, backlog=False)

    calls = {"scoring": lambda: ranker.score(matrix), "reasons": reasons, "shadow": shadow}
    calls |= {f"served rows, sample {rate}": (lambda rate=rate: served(rate)) for rate in (0.0, 0.02, 0.1)}
    costs = cpu_ms(calls)
    assert all(each is not None for each in benchmark.pedantic(reasons, rounds=3))
    benchmark.extra_info.update(costs)
    print(f"\n{CANDIDATES} candidates, {SHOWN} shown, {width} features, {trees} trees of 31 leaves")
    for name, cost in costs.items():
        size = f", {len(served(float(name.rpartition(' ')[2]))) / 1000:.1f} kB" if name.startswith("served") else ""
        print(f"  {name:<26} {cost:8.3f} ms   {cost / costs['scoring']:6.2f} x scoring{size}")
