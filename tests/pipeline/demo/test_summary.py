"""The reckoning: complete only when the sums agree and nobody waits; otherwise it says what is missing."""

from dataclasses import replace

import pytest

from pipeline.demo.ledger import Totals
from pipeline.demo.state_reader import Counts
from pipeline.demo.summary import Summary, missing_of

TOTALS = Totals(published=10, failed=0, triggers=6, answered=6, recommendations=5, repeats=0, older=0, levels={})
COUNTS = Counts(applied=7, repeated=2, dead_lettered=1)


def totals(**changes):
    return replace(TOTALS, **changes)


def test_nothing_is_missing_when_the_sums_agree_and_everybody_is_answered():
    assert missing_of(TOTALS, COUNTS, []) == []
    assert Summary({}).ok


@pytest.mark.parametrize(
    ("books", "counts", "named"),
    [
        (totals(published=11), COUNTS, "published 11"),
        (TOTALS, Counts(applied=8, repeated=2, dead_lettered=1), "= 11"),
        (totals(answered=5), COUNTS, "1 triggers are not answered, the oldest: user_actions-0-3 of u"),
        (totals(failed=2), COUNTS, "2 records were not taken"),
    ],
)
def test_what_is_missing_is_said(books, counts, named):
    (sentence,) = missing_of(books, counts, ["user_actions-0-3 of u"])
    assert named in sentence
    assert not Summary({}, [sentence]).ok
