import random

import numpy as np

from features.document_sample import DocumentSample
from features.fresh import Tick
from features.item_record import pack, pack_gone
from features.schema import Item
from features.value_pool import ValuePool


class Shelf:
    def __init__(self):
        self.sample, self.reads = [], 0

    def read_sample(self):
        self.reads += 1
        return list(self.sample)


def record(name, *genres, ts_ms=5):
    return pack(Item(name, ts_ms, attributes={"genre": list(genres)}))


def sample(shelf, *, freshness_ms=0):
    return DocumentSample(shelf, {"genre": ValuePool()}, freshness_ms=freshness_ms)


def frequencies(documents, *, tick=1):
    """{value: idf} of every value that the sample has met."""
    idf = documents.idf("genre", tick=Tick(tick, tick))
    return dict(zip(documents._pools["genre"].values, idf.tolist(), strict=True))


def test_frequencies_are_of_the_sampled_records_and_of_nothing_else():
    shelf = Shelf()
    shelf.sample = [record("a", "x", "y"), record("b", "x"), record("c")]
    documents = sample(shelf)
    documents._pools["genre"].grow(1)
    documents._pools["genre"].put(0, ["z", "y"])
    wanted = {value: np.float32(np.log(4 / (df + 1)) + 1) for value, df in {"z": 0, "y": 1, "x": 2}.items()}
    assert frequencies(documents) == wanted


def test_what_is_gone_is_no_document():
    shelf = Shelf()
    shelf.sample = [record("a", "x"), pack_gone("b", ts_ms=9)]
    assert frequencies(sample(shelf)) == {"x": 1.0}


def test_a_sample_that_changes_step_by_step_counts_as_one_read_whole():
    rng, shelf = random.Random(3), Shelf()
    stepwise = sample(shelf)
    held = {}
    for step in range(60):
        for _ in range(rng.choice((0, 1, 5))):
            name = f"i{rng.randrange(30)}"
            held[name] = rng.choice(
                (record(name, *rng.sample("uvwxyz", rng.randrange(4)), ts_ms=step), pack_gone(name, ts_ms=step), b"")
            )
        shelf.sample = [blob for blob in held.values() if blob]
        rng.shuffle(shelf.sample)
        now, whole = frequencies(stepwise, tick=step), frequencies(sample(shelf), tick=step)
        assert {value: now[value] for value in whole} == whole
        assert len({idf for value, idf in now.items() if value not in whole}) <= 1


def test_the_sample_is_read_once_a_micro_batch_and_when_it_is_no_longer_fresh():
    shelf = Shelf()
    shelf.sample = [record("a", "x")]
    always, seldom = sample(shelf), sample(shelf, freshness_ms=10)
    for documents, reads in ((always, [1, 1, 2, 3]), (seldom, [1, 1, 1, 2])):
        shelf.reads, seen = 0, []
        for number, wall_ms in ((1, 0), (1, 0), (2, 9), (3, 10)):
            documents.idf("genre", tick=Tick(number, wall_ms))
            seen.append(shelf.reads)
        assert seen == reads
