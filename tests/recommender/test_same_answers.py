"""One state, one answer: to the bit, whatever a process was asked before and whichever store holds the state."""

import random
from itertools import islice

import pytest

from features.catalog import catalog
from features.domain import Action, Attribute, Domain
from features.facts import Fact
from features.ids import hash64
from features.schema import INPUT_TOPICS, Impression, Item, UserAction
from features.state import State
from features.store.memory import MemoryStore
from features.store.port import Part
from features.store.redis import RedisStore
from features.view import StateView
from pipeline.config import Settings
from pipeline.offline import Source, settings_for
from recommender.candidates import SOURCES
from recommender.filters import filters
from recommender.query import Query
from recommender.recommend import Recommender
from recommender.replay import QUOTAS
from tests.datasets import dataset

START_MS = 1_700_000_000_000
GENRES = [f"g{number}" for number in range(30)]
SHOP = Domain(
    actions=(Action("view"), Action("buy", weight=3.0, purchase=True)),
    attributes=(
        Attribute("genres", "set", candidates=True),
        Attribute("brand", "category", candidates=True, rate=True),
        Attribute("price", "number"),
    ),
)
BATCH = 500


def shop_log(*, items=900, users=40, events=1500):
    """A catalogue, shown lists and walks of some taste."""
    rng = random.Random(8)
    for number in range(items):
        genres = rng.sample(GENRES, rng.randrange(5))
        brand = f"b{rng.randrange(200)}"
        yield (
            "items",
            Item(f"i{number}", START_MS, attributes={"genres": genres, "brand": brand, "price": 1.0 * number}),
        )
    for number in range(events):
        user = f"u{rng.randrange(users)}"
        ts_ms = START_MS + number * 60_000
        if number % 5 == 0:
            shown = [f"i{rng.randrange(items)}" for _ in range(12)]
            yield "impressions", Impression(f"m{number}", user, shown, ts_ms)
        item = f"i{int(rng.triangular(0, items, 0))}"
        yield "user_actions", UserAction(f"e{number}", user, item, rng.choice(("view", "view", "buy")), ts_ms)


class Twins:
    """One log applied to several stores."""

    def __init__(self, domain, *stores):
        self.domain, self.stores = domain, stores
        self.states = [State(store, domain) for store in stores]
        for state in self.states:
            for topic in INPUT_TOPICS:
                state.resume(Part(topic, 0), committed=None, log_start=0)
        self.fed = dict.fromkeys(INPUT_TOPICS, 0)
        self.now_ms = 0
        self.users, self.lists = {}, {}

    def apply(self, records):
        """Batches of up to 500 records, cut where the topic changes."""
        facts, of = [], ""
        for topic, record in records:
            if facts and (topic != of or len(facts) == BATCH):
                self._put(of, facts)
                facts = []
            facts.append(Fact(self.fed[topic], record))
            self.fed[topic], of = self.fed[topic] + 1, topic
            self.now_ms = max(self.now_ms, record.ts_ms)
            if user := getattr(record, "user_id", None):
                self.users[user] = None
            if isinstance(record, Impression):
                self.lists[record.impression_id] = record
        if facts:
            self._put(of, facts)

    def _put(self, topic, facts):
        for state in self.states:
            state.apply(Part(topic, 0), facts, last=facts[-1].offset)

    def path(self, number=0):
        """A fresh path over the store of that number."""
        layout = self.states[number].layout
        view = StateView(self.stores[number], self.domain, layout, freshness_ms=0)
        columns = catalog(self.domain, sources=[source.name for source in SOURCES])
        kept = filters(("available",), domain=self.domain, layout=layout)
        return Recommender(view, columns, SOURCES, kept, QUOTAS, 200, lambda: None)

    def questions(self, count):
        """For the newest users what to show, and the newest lists."""
        found = [(user, None) for user in list(self.users)[-count:]]
        return found + [(each.user_id, each.item_ids) for each in list(self.lists.values())[-count:]]

    def answer(self, path, question):
        """Everything that the sources find and the rows of the candidates, as bytes."""
        user_id, shown = question
        path.view.advance(wall_ms=0)
        (user,) = path.view.histories([hash64(user_id)], now_ms=self.now_ms)
        query = Query("q", user_id, self.now_ms, user, 20, given=shown)
        found, failed = path.find([query])
        assert not failed
        ready = path.rows([query])[0]
        sources = [
            (name.name, each.items.tobytes(), each.scores.tobytes())
            for name, each in zip(SOURCES, found[0], strict=True)
        ]
        return sources, ready.candidates.items.tobytes(), ready.matrix.tobytes()


def assert_same_answers(twins, *, questions):
    asked = twins.questions(questions)
    wanted = [twins.answer(twins.path(), question) for question in asked]
    assert any(len(scores) for sources, _, _ in wanted for _, _, scores in sources)
    for number in range(len(twins.stores)):
        warm = twins.path(number)
        for question in random.Random(1).sample(asked, len(asked)):
            twins.answer(warm, question)
        assert [twins.answer(warm, question) for question in asked] == wanted


def test_a_warm_view_and_a_fresh_one_answer_alike_as_the_state_grows():
    twins = Twins(SHOP, MemoryStore())
    log = list(shop_log())
    old = twins.path()
    for first in range(0, len(log), 400):
        twins.apply(log[first : first + 400])
        if twins.users:
            for question in twins.questions(5):
                assert twins.answer(old, question) == twins.answer(twins.path(), question)


@pytest.mark.data
@pytest.mark.services
@pytest.mark.parametrize("name", ["ranklens", "trivago", "online-retail"])
def test_on_real_logs_redis_and_memory_answer_alike_fresh_or_warm(redis_url, name):
    folder = dataset(name)
    settings = settings_for(folder, Settings())
    twins = Twins(settings.domain, MemoryStore(), RedisStore(redis_url, app="same", timeout_ms=60_000))
    twins.apply(islice(Source(folder, settings), 6000))
    assert_same_answers(twins, questions=8)


@pytest.mark.services
def test_views_on_redis_and_memory_answer_alike_fresh_or_warm(redis_url):
    twins = Twins(SHOP, MemoryStore(), RedisStore(redis_url, app="same", timeout_ms=60_000))
    twins.apply(shop_log())
    assert_same_answers(twins, questions=12)


def test_questions_asked_together_and_alone_are_answered_alike():
    twins = Twins(SHOP, MemoryStore())
    twins.apply(shop_log())
    path = twins.path()
    users = list(twins.users)
    histories = path.view.histories([hash64(user) for user in users], now_ms=twins.now_ms)
    together = path.rows(
        [Query(user, user, twins.now_ms, past, 20) for user, past in zip(users, histories, strict=True)]
    )
    for user, ready in zip(users, together, strict=True):
        _, items, matrix = twins.answer(twins.path(), (user, None))
        assert (ready.candidates.items.tobytes(), ready.matrix.tobytes()) == (items, matrix)
