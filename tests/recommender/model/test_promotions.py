import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.model.gate import Verdict
from recommender.model.promotions import FILE, Promotion, before, history, note

VERSIONS = st.sampled_from(["v1", "v2", "v3", "v4"])


def line(action, version, **rest):
    return Promotion(ts_ms=1, action=action, version=version, **rest)


def test_lines_come_back_in_order_with_their_verdict(tmp_path):
    verdict = Verdict(version="v2", latency_ms=3.0, refused=[], serving="v1", queries=200, ndcg=0.6)
    written = [
        line("promote", "v1", forced=True),
        line("promote", "v2", before="v1", verdict=verdict),
        line("shadow", None),
    ]
    for each in written:
        note(tmp_path, each)
    assert history(tmp_path) == written


def test_without_a_file_there_is_no_history(tmp_path):
    assert history(tmp_path) == []


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_cut_last_line_costs_itself_and_not_the_next(tmp_path, cut):
    note(tmp_path, line("promote", "v1"))
    note(tmp_path, line("promote", "v2"))
    raw = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(raw[:-cut])
    whole = ["v1", "v2"] if cut == 1 else ["v1"]  # only the line's end is gone
    assert [each.version for each in history(tmp_path)] == whole
    note(tmp_path, line("promote", "v3"))
    assert [each.version for each in history(tmp_path)] == [*whole, "v3"]


def test_lines_that_are_none_are_passed_over(tmp_path):
    (tmp_path / FILE).write_bytes(b'\x00\xff\n{}\n[[[[\n{"ts_ms":1,"action":"odd","version":"v1"}\n\n')
    note(tmp_path, line("promote", "v1"))
    assert [each.version for each in history(tmp_path)] == ["v1"]


def test_a_second_rollback_goes_one_further_back():
    past = [line("promote", version) for version in ("v1", "v2", "v3")]
    past.append(line("rollback", before(past, "v3")))
    assert past[-1].version == "v2"
    assert before(past, "v2") == "v1"


def test_a_version_promoted_after_a_rollback_has_the_one_rolled_back_to_before_it():
    past = [line("promote", "v1"), line("promote", "v2"), line("rollback", "v1"), line("promote", "v3")]
    assert before(past, "v3") == "v1"


def test_a_promotion_whose_record_never_went_out_is_not_gone_back_to():
    past = [line("promote", "v1"), line("promote", "v2"), line("promote", "v3")]
    assert before(past, "v2") == "v1"


def test_a_version_named_by_other_means_goes_back_to_the_last_one_known():
    assert before([line("promote", "v1"), line("promote", "v2")], "v9") == "v2"
    assert before([], "v9") is None


def test_shadows_are_no_business_of_a_rollback():
    past = [line("promote", "v1"), line("promote", "v2"), line("shadow", "v9"), line("shadow", None)]
    assert before(past, "v2") == "v1"


@given(st.lists(VERSIONS, max_size=12))
def test_rollbacks_end_and_never_name_what_serves(promoted):
    past = [line("promote", version) for version in promoted]
    serving, steps = (promoted or [None])[-1], 0
    while serving is not None and (target := before(past, serving)) is not None:
        assert target != serving
        past.append(line("rollback", target))
        serving, steps = target, steps + 1
        assert steps <= len(promoted)
