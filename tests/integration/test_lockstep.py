"""`evaluate rerank --through-kafka`: a real worker on real topics gives the protocol's own rankings, to the bit."""

import json
import random
from itertools import islice

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from features.schema import Impression, Item, UserAction
from pipeline import dataset as folders
from pipeline.cli import main
from pipeline.config import Settings
from pipeline.offline import Source, settings_for
from pipeline.private_worker import PrivateWorker
from tests.datasets import dataset
from tests.redis_servers import client_of

pytestmark = pytest.mark.services

START_MS = 1_700_000_000_000
MEANING = """
item_context = ["price"]
[[actions]]
name = "click"
[[actions]]
name = "buy"
weight = 3.0
purchase = true
[[attributes]]
name = "genres"
kind = "set"
candidates = true
rate = true
[[attributes]]
name = "price"
kind = "number"
[[context]]
name = "device"
kind = "category"
"""


def shop(*, lists=150, items=90, users=15):
    """Lists with prices of their own, shown to people of some taste; items come and change all the while."""
    rng = random.Random(11)
    genres = {number: rng.sample("abcdefgh", rng.randrange(1, 4)) for number in range(items)}
    liked = [rng.choice("abcdefgh") for _ in range(users)]

    def item(number, ts_ms):
        return "items", Item(f"i{number}", ts_ms, attributes={"genres": genres[number], "price": rng.uniform(1, 99)})

    yield from (item(number, START_MS) for number in range(items // 2))
    for number in range(lists):
        ts_ms, user = START_MS + number * 40_000, rng.randrange(users)
        if number % 15 == 0:
            yield item(rng.randrange(items), ts_ms)
        shown = rng.sample(range(items), 8)
        asked = {"context": {"device": rng.choice(("phone", "desk"))}} if number % 2 else {}
        prices = [rng.choice((None, rng.uniform(1, 99))) for _ in shown]
        ids = [f"i{each}" for each in shown]
        yield "impressions", Impression(f"m{number}", f"u{user}", ids, ts_ms, item_context={"price": prices}, **asked)
        wanted = [each for each in shown if liked[user] in genres[each]] or shown[:1]
        for place, each in enumerate(wanted[:2]):
            name = "buy" if rng.random() < 0.2 else "click"
            event, at_ms = f"e{number}-{place}", ts_ms + 1000 + place
            yield "user_actions", UserAction(event, f"u{user}", f"i{each}", name, at_ms, impression_id=f"m{number}")


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    folders.write(folder, [(topic, msgspec.json.encode(record)) for topic, record in shop()])
    (folder / "worker.toml").write_text(MEANING)
    return folder


@pytest.fixture(autouse=True)
def _small_ranker(monkeypatch):
    monkeypatch.setenv("HEADRACE_TRAINING_TREES_MAX", "20")
    monkeypatch.setenv("HEADRACE_TRAINING_SEARCH", "0")


@pytest.fixture
def configured(servers, tmp_path):
    """Settings that name the session's servers, and no actions: those are the folder's."""
    path = tmp_path / "worker.toml"
    path.write_text(f'[kafka]\nbootstrap = "{servers.bootstrap}"\n[redis]\nurl = "{servers.redis_url}"\n')
    return path


def rerank(*arguments, config=None):
    before = ["--config", str(config)] if config else []
    return CliRunner().invoke(main, [*before, "evaluate", "rerank", *map(str, arguments), "--through-kafka"])


def test_every_list_score_and_row_and_the_state_are_equal_to_the_bit(log, configured, servers):
    done = rerank(log, "--sample", 15, "--servers", "configured", "--json", config=configured)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    compared = found["through_kafka"]
    assert compared["lists"] == compared["lists_equal"] == 15
    assert compared["rows"] == compared["rows_equal"] == compared["scores_equal"] == 15 * 8
    assert compared["digests_equal"]
    assert compared["differences"] == []
    assert found["queries"] == 30
    assert not left_behind(servers)


def left_behind(servers):
    """Topics and keys of a lock step that are still there."""
    with client_of(servers.redis_url) as client:
        keys = list(client.scan_iter(match="*lockstep*"))
    topics = AdminClient({"bootstrap.servers": servers.bootstrap}).list_topics(timeout=10).topics
    return keys + [name for name in topics if "lockstep" in name]


def test_a_worker_that_saw_another_log_is_told_by_line_and_exit_code(log, configured, monkeypatch):
    publish = PrivateWorker.publish

    def forgetful(self, topic, records):
        publish(self, topic, [each for each in records if getattr(each, "event_id", "") != "e125-0"])

    monkeypatch.setattr(PrivateWorker, "publish", forgetful)
    done = rerank(log, "--sample", 30, "--servers", "configured", config=configured)
    assert done.exit_code == 1, done.output
    assert "digests DIFFER" in done.output
    assert "columns: item_" in done.output


def test_positions_cannot_be_asked_through_a_request(log):
    done = rerank(log, "--use-position")
    assert done.exit_code == 2
    assert "--use-position" in done.output


@pytest.mark.data
def test_ranklens_is_ranked_through_kafka_as_in_process(tmp_path):
    name = dataset("ranklens")
    settings = settings_for(name, Settings())
    folder = tmp_path / "ranklens"
    folder.mkdir()
    records = ((topic, msgspec.json.encode(record)) for topic, record in Source(name, settings) if record is not None)
    folders.write(folder, islice(records, 6_000))
    done = rerank(folder, "--sample", 20, "--questions", 150, "--json")
    assert done.exit_code == 0, done.output
    compared = json.loads(done.stdout)["through_kafka"]
    assert compared["lists_equal"] == 20
    assert compared["rows_equal"] == compared["scores_equal"] == 20 * 24
    assert compared["digests_equal"]
