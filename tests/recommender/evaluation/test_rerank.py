import numpy as np
import pytest

from recommender.evaluation.rerank import RANKED, cut, rerank
from recommender.model.log_columns import read_columns
from recommender.model.plan import plan
from recommender.replay import Replayer
from tests.recommender.evaluation.logs import DOMAIN, ByColumn, shown_lists


def judged(log, *, column="item_click_rate_total", questions_max=1000, seen=None, watch=None):
    replayer = Replayer(DOMAIN)

    def fit(rows):
        if seen is not None:
            seen.append(rows)
        return ByColumn(replayer.catalog, column)

    asked = plan(read_columns(log, DOMAIN), DOMAIN, "lists")
    return rerank(log, asked, replayer, fit=fit, questions_max=questions_max, watch=watch)


def figures(judgement):
    return {
        system.name: {name: column.tolist() for name, column in system.values.items()} for system in judgement.systems
    }


def test_the_first_four_fifths_train_and_the_rest_is_judged():
    seen = []
    found = judged(shown_lists(40), seen=seen)
    assert [len(rows) for rows in seen] == [32]
    assert found.trained_on == 32
    assert all(len(column) == 8 for system in found.systems for column in system.values.values())


@pytest.mark.parametrize(("lists", "trained"), [(7018 + 1755, 7018), (6721, 5377)])
def test_the_cut_is_rounded(lists, trained):
    assert cut(lists) == trained


def test_only_the_newest_questions_before_the_cut_are_learned():
    seen = []
    judged(shown_lists(40), seen=seen, questions_max=5)
    assert seen[0].query_ids == tuple(f"m{number}" for number in range(27, 32))


def test_the_order_of_the_lists_moves_no_figure_but_those_of_the_rules_that_look_at_it():
    plain, turned = (figures(judged(shown_lists(40, turned=turned))) for turned in (False, True))
    assert plain.pop("as shown") != turned.pop("as shown")
    for found in (plain, turned):
        del found["touched last first, then as shown"]
    assert plain == turned


def test_the_state_goes_on_through_the_test_part():
    """A click in the test part counts for the next test list: the smoothed rate is no constant there."""
    moments = []
    judged(shown_lists(40), watch=lambda question, query, ready, scores: moments.append(ready.matrix.copy()))
    column = Replayer(DOMAIN).catalog.names.index("item_click_count_total")
    totals = [int(matrix[:, column].sum()) for matrix in moments]
    assert len(moments) == 8
    assert max(totals) > totals[0]


def test_random_is_the_expectation_over_all_orders():
    found = figures(judged(shown_lists(40)))["random"]["mrr"]
    assert np.allclose(found, sum(1 / place for place in range(1, 7)) / 6)


def test_a_ranker_that_knows_the_answer_is_first():
    systems = judged(shown_lists(60)).systems
    assert systems[0].name == RANKED
    assert systems[0].values["mrr"].mean() > next(s for s in systems if s.name == "random").values["mrr"].mean()


def test_a_log_without_a_list_to_test_is_an_error():
    with pytest.raises(ValueError, match="no question to test"):
        judged([])
