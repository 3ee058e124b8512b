"""What is scored is what is logged is what is learnt from, byte for byte; and the scores come back from it."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender import served as served_module
from recommender.ranker import Cascade, LightGBMRanker
from recommender.recommend import Ranked, Sample
from recommender.selection import sampled
from recommender.served import is_backlog, pack, recompute, unpack
from tests.recommender.boosters import make_booster, rows

WIDTH = 6
CLOCKS = {"user_id": "u", "ts_ms": 5, "event_age_ms": 7, "backlog": False}


@pytest.fixture(scope="module")
def booster():
    return make_booster(WIDTH)


def ranker(booster, cascade=None):
    return LightGBMRanker(booster, "v3", "f00d", trees=20, cascade=cascade)


def answer(scored_by, *, shown=5, size=60, drawn=12, rate=0.25):
    """The best `shown` of a list, and a sample of the others."""
    matrix = rows(WIDTH, size=size)
    scores = scored_by.score(matrix, shown=shown)
    order = np.argsort(-scores, kind="stable")
    top, rest = order[:shown], order[shown : shown + drawn]
    sample = Sample(
        [f"s{n}" for n in rest], scores[rest], matrix[rest], np.sort(np.linspace(0, rate, drawn, endpoint=False)), rate
    )
    return Ranked(
        "rec-1", [f"i{n}" for n in top], scores[top], ["new"] * shown, "full", None, "v3", "f00d", matrix[top],
        cascade_trees=scored_by.cascade_trees, sample=sample,
    )  # fmt: skip


def test_the_record_holds_shown_rows_first_and_then_the_sample(booster):
    ranked = answer(ranker(booster))
    served, scores, numbers = unpack(pack(ranked, **CLOCKS))
    assert (served.rec_id, served.user_id, served.ts_ms, served.event_age_ms) == ("rec-1", "u", 5, 7)
    assert (served.model_version, served.features_hash, served.cascade_trees) == ("v3", "f00d", 0)
    assert (served.shown, served.sample_rate, served.backlog) == (5, 0.25, False)
    assert served.item_ids == [*ranked.item_ids, *ranked.sample.item_ids]
    assert numbers.tobytes() == ranked.matrix.tobytes() + ranked.sample.matrix.tobytes()
    assert scores.tobytes() == ranked.scores.tobytes() + ranked.sample.scores.tobytes()


@pytest.mark.parametrize("cascade", [None, Cascade(5, 3), Cascade(5, 40), Cascade(5, 100), Cascade(20, 3)])
def test_the_scores_are_recomputed_to_the_bit_from_the_logged_rows(booster, cascade):
    unpacked = unpack(pack(answer(ranker(booster, cascade)), **CLOCKS))
    trees = unpacked.served.cascade_trees
    again = ranker(booster, Cascade(trees, keep=0) if trees else None)
    assert recompute(unpacked, again).tobytes() == unpacked.scores.tobytes()


def test_another_model_or_a_changed_row_shows(booster):
    unpacked = unpack(pack(answer(ranker(booster)), **CLOCKS))
    assert recompute(unpacked, ranker(make_booster(WIDTH, seed=6))).tobytes() != unpacked.scores.tobytes()
    changed = unpacked.rows.copy()
    changed[0, 0] += 5
    assert recompute(unpacked._replace(rows=changed), ranker(booster))[0] != unpacked.scores[0]


@pytest.mark.parametrize("room", [0, 1, 5, 11, 12])
def test_beyond_the_bound_the_sample_is_cut_and_its_rate_with_it_the_shown_never(booster, monkeypatch, room):
    ranked = answer(ranker(booster))
    monkeypatch.setattr(served_module, "SERVED_BYTES_MAX", ranked.matrix.nbytes + room * WIDTH * 4 + 3)
    served, scores, numbers = unpack(pack(ranked, **CLOCKS))
    assert served.shown == 5
    assert served.item_ids == [*ranked.item_ids, *ranked.sample.item_ids[:room]]
    assert len(scores) == len(numbers) == 5 + room
    assert served.sample_rate == (0.25 if room == 12 else ranked.sample.draws[room])


def test_what_is_shown_goes_out_whole_even_beyond_the_bound(booster, monkeypatch):
    monkeypatch.setattr(served_module, "SERVED_BYTES_MAX", 10)
    served, _, _ = unpack(pack(answer(ranker(booster)), **CLOCKS))
    assert (served.shown, len(served.item_ids), served.sample_rate) == (5, 5, 0)


def test_another_format_or_a_cut_record_is_refused_by_what_is_wrong(booster):
    raw = pack(answer(ranker(booster)), **CLOCKS)
    fields = msgspec.msgpack.decode(raw)
    with pytest.raises(ValueError, match="format 1"):
        unpack(msgspec.msgpack.encode([1, *fields[1:]]))
    with pytest.raises(ValueError, match="numbers"):
        unpack(msgspec.msgpack.encode([*fields[:-1], fields[-1][:-4]]))
    with pytest.raises(ValueError, match="99 of them shown"):
        unpack(msgspec.msgpack.encode([*fields[:10], 99, *fields[11:]]))


@given(cut=st.integers(0, 400), noise=st.binary(max_size=60))
def test_broken_bytes_raise_nothing_but_value_errors(cut, noise):
    raw = pack(Ranked("r", ["i"], np.ones(1), ["new"], "full", None, "v", "f", np.ones((1, 3), np.float32)), **CLOCKS)
    for broken in (raw[:cut], raw[:cut] + noise, noise):
        try:
            unpacked = unpack(broken)
        except ValueError:
            continue
        assert len(unpacked.scores) == len(unpacked.rows) == len(unpacked.served.item_ids)


@given(rate=st.floats(0, 1), size=st.integers(0, 300), query_id=st.text(max_size=9))
def test_a_sample_is_the_same_for_the_same_question_and_free_of_order(rate, size, query_id):
    items = np.arange(size, dtype=np.uint64) * np.uint64(2**40 + 7)
    places, draws = sampled(items, rate=rate, query_id=query_id)
    backwards, _ = sampled(items[::-1], rate=rate, query_id=query_id)
    assert items[places].tolist() == items[::-1][backwards].tolist()
    assert draws.tolist() == sorted(draws.tolist())
    assert ((draws >= 0) & (draws < max(rate, 1e-300))).all()


def test_a_sample_holds_about_its_share_and_every_item_for_one():
    items = np.arange(20_000, dtype=np.uint64)
    found = [len(sampled(items, rate=0.02, query_id=f"q{n}")[0]) for n in range(20)]
    assert 350 < np.mean(found) < 450
    assert len(sampled(items, rate=1.0, query_id="q")[0]) == len(items)
    assert len(sampled(items, rate=0.0, query_id="q")[0]) == 0


@pytest.mark.parametrize(
    ("read_s", "log_s", "event_s", "backlog"),
    [(100, 100, 100, False), (160, 100, 100, False), (160.001, 100, 100, True), (200, 200, 100, True), (0, 0, 300, False)],
)  # fmt: skip
def test_a_backlog_is_what_is_read_a_minute_after_it_was_logged_or_after_it_happened(read_s, log_s, event_s, backlog):
    clocks = {"read_ms": read_s, "log_ts_ms": log_s, "ts_ms": event_s}
    assert is_backlog(**{name: math.ceil(second * 1000) for name, second in clocks.items()}) is backlog
