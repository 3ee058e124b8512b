"""Full evaluations on real data, by the commands' own code: what the README promises holds. Minutes, not seconds."""

import msgspec
import pytest

from pipeline.config import Settings
from pipeline.evaluating import Options, next_item_folder, rerank_folder
from pipeline.tables import print_report
from tests.datasets import dataset

pytestmark = [pytest.mark.data, pytest.mark.timeout(1200)]

NO_GOODS = ("POST", "DOT", "M", "D", "C2", "PADS", "CRUK", "BANK CHARGES")


def options(**chosen):
    """The commands' defaults without the search, which doubles the time and moves no figure across a floor."""
    return Options(msgspec.structs.replace(Settings().training, search=0), **chosen)


def rerank(name, **chosen):
    report, judgement, asked = rerank_folder(dataset(name), Settings(), options(**chosen), say=lambda *_: None)
    print_report(report)
    assert len(asked) == report.queries + judgement.trained_on
    return report


def next_item(name, *, without=(), attributes=(), **chosen):
    asked = options(without_items=without, without_attributes=attributes)
    report = next_item_folder(dataset(name), Settings(), asked, say=lambda *_: None, **chosen)
    print_report(report)
    return report


def figure(report, metric, system="Headrace"):
    return next(each for each in report.systems if each.name == system).metrics[metric].mean


def assert_ahead_of_each(report, *metrics, but=()):
    """The paired 95 % interval of the lead lies above 0, for every rule and metric."""
    behind = {
        (system.name, metric): system.differences[metric]
        for system in report.systems[1:]
        for metric in metrics
        if system.name not in but and not system.differences[metric].low > 0
    }
    assert behind == {}


def test_ranklens_without_the_position_is_above_605_and_clear_of_the_smoothed_click_rate():
    report = rerank("ranklens")
    assert (report.facts["trained on"], report.queries) == (7018, 1755)
    assert figure(report, "ndcg@10") >= 0.605
    assert 0.59 < figure(report, "ndcg@10", "smoothed CTR") < 0.60
    assert_ahead_of_each(report, "ndcg@10")


def test_trivago_without_the_position_is_above_48():
    report = rerank("trivago")
    assert (report.facts["trained on"], report.queries) == (5377, 1344)
    assert figure(report, "mrr") >= 0.48


def test_trivago_with_the_position_is_above_60_and_ahead_of_every_rule():
    report = rerank("trivago", use_position=True)
    assert figure(report, "mrr") >= 0.60
    assert 0.58 < figure(report, "mrr", "touched last first, then as shown") < 0.60
    assert_ahead_of_each(report, "mrr")


def test_serenade_candidates_alone_and_ranked_reach_what_is_published():
    report = next_item(
        "serenade-example/train", test=dataset("serenade-example/test"), valid=dataset("serenade-example/valid")
    )
    assert report.queries == 931
    candidates = "candidates without a ranker"
    assert figure(report, "mrr@20", candidates) >= 0.335
    assert figure(report, "hr@20", candidates) >= 0.655
    assert figure(report, "mrr@20") >= 0.38
    assert figure(report, "hr@20") >= 0.66


@pytest.mark.parametrize("new_to_user", [False, True])
def test_deskdrop_is_ahead_of_every_rule(new_to_user):
    report = next_item("deskdrop", new_to_user=new_to_user)
    assert_ahead_of_each(report, "hr@20", "mrr@20")


def test_baskets_of_online_retail_are_ahead_of_every_rule():
    report = next_item("online-retail", kind="baskets", without=NO_GOODS, attributes=("price",))
    assert_ahead_of_each(report, "hr@20", "recall@20", "ndcg@20")
