"""The digest: blind to what may differ between two right runs, and to nothing else."""

from features.digest import digest
from features.domain import Action, Domain
from features.schema import Impression, Item, UserAction
from features.state import Fact, State
from features.store.memory import MemoryStore
from features.store.port import Part

DOMAIN = Domain(actions=(Action("view"), Action("buy", purchase=True)))
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
RECORDS = [
    UserAction("e1", "u1", "i1", "view", NOW_MS),
    UserAction("e2", "u1", "i2", "buy", NOW_MS + 1, session_id="s"),
    UserAction("e3", "u2", "i1", "view", NOW_MS + 2),
]


def digest_of(records, *, store=None, partition=0, first=0, topic="user_actions", domain=DOMAIN):
    store = store or MemoryStore()
    state = State(store, domain)
    part = Part(topic, partition)
    state.resume(part, committed=None, log_start=first)
    facts = [Fact(first + at, record) for at, record in enumerate(records)]
    state.apply(part, facts, last=first + len(facts))
    return digest(store, state.layout, domain)


def test_offsets_partitions_tags_and_versions_do_not_count():
    assert digest_of(RECORDS) == digest_of(RECORDS[::-1], partition=3, first=77)


def test_the_numbers_of_action_codes_do_not_count():
    store = MemoryStore()
    store.open(Domain(actions=(Action("view"), Action("buy"), Action("old", counted=False))))
    store._meta = {field: value for field, value in store._meta.items() if not field.startswith("action:")}
    store._meta["action:1:9"] = "buy"
    assert digest_of(RECORDS, store=store) == digest_of(RECORDS)


def test_every_field_of_an_event_counts():
    changes = [
        {"event_id": "x"}, {"user_id": "x"}, {"item_id": "x"}, {"action": "buy"}, {"ts_ms": NOW_MS + 5},
        {"session_id": "x"},
    ]  # fmt: skip
    plain = RECORDS[0]
    fields = {field: getattr(plain, field) for field in plain.__struct_fields__}
    digests = {digest_of([UserAction(**{**fields, **change})]) for change in [{}, *changes]}
    assert len(digests) == len(changes) + 1


def test_impressions_items_and_purchases_count():
    shown = Impression("m1", "u1", ["i1"], NOW_MS)
    assert digest_of([shown], topic="impressions") != digest_of([])
    entries = [Item("i1", 5), Item("i1", 5, available=False), Item("i1", 5, attributes={"a": 1.0}), Item("i2", 5)]
    assert len({digest_of([entry], topic="items") for entry in entries}) == 4
    free = Domain(actions=(Action("view"), Action("buy")))
    assert digest_of(RECORDS) != digest_of(RECORDS, domain=free)


def test_an_empty_state_has_a_digest():
    assert len(digest_of([])) == 64


def test_what_may_have_expired_does_not_count():
    store, twin = MemoryStore(), MemoryStore()
    ages = (DOMAIN.user_retention_ms + 3 * DAY_MS, 0)
    old, new = (UserAction(f"e{age}", f"u{age}", f"i{age}", "buy", NOW_MS - age) for age in ages)
    digests = [digest_of([old, new], store=store), digest_of([old, new], store=twin)]
    for shard in store._shards:
        for key, blob in list(shard.users.items()):
            if user_is_old(blob, NOW_MS - DAY_MS):
                del shard.users[key]
        for key, ring in list(shard.rings.items()):
            if int.from_bytes(ring[:4], "big") * 60_000 < NOW_MS - DAY_MS:
                del shard.rings[key]
    after = digest(store, store.open(DOMAIN), DOMAIN)
    assert digests == [after, after]
    assert list(store.scan("u")) != list(twin.scan("u"))


def user_is_old(blob, before_ms):
    return int.from_bytes(blob[12:18], "big") < before_ms
