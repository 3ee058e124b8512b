"""A rebuild says what the state before came from that is no longer there."""

from pathlib import Path

from features.store.port import Part
from pipeline.rebuild import Job, lacking

TOPICS = {name: f"p.{name}" for name in ("user_actions", "items", "recommendation_requests")}
META = {
    "start:1:p.user_actions:0": "5",
    "start:1:p.user_actions:1": "7",
    "start:1:p.items:0": "0",
    "start:1:p.recommendation_requests:0": "0",
    "start:1:folder/items:32768": "0",
    "start:2:p.user_actions:1": "0",
    "log:1:p.user_actions": "aa",
    "log:1:p.items": "bb",
}
BEGINS = {Part("p.user_actions", 0): 5, Part("p.user_actions", 1): 12, Part("p.recommendation_requests", 0): 99}


def job(**differs):
    given = {"settings": None, "topics": TOPICS, "logs": {"p.user_actions": "aa", "p.items": "bb"}, "folder": Path()}
    return Job(**(given | {"serving": 1, "generation": 2, "begun_ms": 0} | differs))


def test_offsets_that_the_log_no_longer_holds_are_named_but_not_those_of_requests_which_change_nothing():
    assert lacking(META, job(), BEGINS) == ("p.user_actions-1: offsets 7 to 11",)


def test_a_folder_is_named_where_it_was_not_given_again():
    assert lacking(META, job(folder=None), {}) == ("folder/items: the folder",)


def test_all_before_a_topic_was_created_again_is_named():
    logs = {"p.user_actions": "aa", "p.items": "cc"}
    assert lacking(META, job(logs=logs), {}) == ("p.items-0: all before the topic was created again",)


def test_a_redis_that_lost_all_names_nothing():
    assert lacking({}, job(), BEGINS) == ()
