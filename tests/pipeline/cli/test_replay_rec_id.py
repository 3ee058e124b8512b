"""`replay --rec-id`: what is printed, and the exit code that a script reads."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import recheck
from pipeline.cli import main, replay
from pipeline.recheck import Check, ItemCheck
from recommender.recommend import Ranked
from recommender.served import pack, unpack


def served(version="v1"):
    ranked = Ranked(
        "r-1", ["a", "b"], np.array([0.1, 0.2]), ["new"] * 2, "full", None, version, "f00d", np.ones((2, 3), np.float32)
    )
    return unpack(pack(ranked, user_id="u", ts_ms=5, event_age_ms=0, backlog=False)).served


SAME = ItemCheck("a", shown=True, logged=0.1, recomputed=0.1, published=0.1)
OTHER = ItemCheck("b", shown=True, logged=0.2, recomputed=0.1 + 0.1 + 1e-17, published=float(np.nextafter(0.2, 1)))
UNSHOWN = ItemCheck("s", shown=False, logged=0.05, recomputed=0.05, published=None)


@pytest.fixture
def run(monkeypatch):
    def go(*checks, options=()):
        monkeypatch.setattr(replay, "Reader", lambda settings: nullcontext())
        monkeypatch.setattr(recheck, "find", lambda reader, **how: (list(checks), []))
        monkeypatch.setattr(recheck, "checks", lambda records, published, models: list(checks))
        return CliRunner().invoke(main, ["replay", "--rec-id", "r-1", *options])

    return go


def test_equal_scores_are_told_item_by_item_and_exit_0(run):
    done = run(Check(served(), [SAME, UNSHOWN], 1, is_published=True, strangers=0))
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "r-1 for u: model v1, features f00d"
    assert lines[2].split() == ["a", "0.1", "0.1", "0.1", "yes"]
    assert lines[3].endswith("yes  (not shown)")
    assert lines[-1] == "equal to the bit"


def test_one_bit_is_a_difference_and_exit_1(run):
    done = run(Check(served(), [SAME, OTHER], 1, is_published=True, strangers=0), options=["--json"])
    assert done.exit_code == 1
    (record,) = json.loads(done.output)["records"]
    assert [item["equal"] for item in record["items"]] == [True, False]
    assert record["items"][1]["published"] != record["items"][1]["logged"]


def test_content_that_was_never_published_is_a_difference(run):
    done = run(Check(served(), [SAME], 2, is_published=False, strangers=2))
    assert done.exit_code == 1
    assert "2 published under this rec_id, none with these items by this model" in done.output


def test_a_recommendation_that_is_no_longer_held_has_an_exit_code_of_its_own(run):
    done = run(Check(served(), [SAME], 0, is_published=False, strangers=0))
    assert done.exit_code == 3
    assert "not on its topic any more" in done.output


def test_where_the_sources_ranked_it_is_said_plainly(run):
    unscored = ItemCheck("a", shown=True, logged=0.1, recomputed=None, published=0.1)
    done = run(Check(served("none"), [unscored], 1, is_published=True, strangers=0))
    assert done.exit_code == 0
    assert "the candidate sources ranked it: there is nothing to recompute" in done.output


@pytest.mark.parametrize("arguments", [[], ["somewhere", "--rec-id", "x"], ["--rec-id", "x", "--limit", "3"]])
def test_a_folder_or_a_rec_id_is_replayed_not_both_and_not_neither(arguments, tmp_path):
    done = CliRunner().invoke(main, ["replay", *arguments])
    assert done.exit_code == 2
    assert "--rec-id" in done.output
