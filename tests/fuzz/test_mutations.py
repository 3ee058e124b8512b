"""The mutators are what chaos and fuzzing stand on: seeded, bounded, and most of them do harm."""

import json

from features.schema import Refused, decode
from tests.fuzz.mutations import GROWN_BYTES_MAX, MUTATORS, NESTING, ROUNDS_MAX, mutated

SOUND = json.dumps(
    {"event_id": "e1", "user_id": "u1", "item_id": "i1", "action": "view", "ts_ms": 1_760_000_000_000}
).encode()


def test_one_seed_is_one_mutation():
    assert [mutated(SOUND, seed) for seed in range(500)] == [mutated(SOUND, seed) for seed in range(500)]
    assert len({mutated(SOUND, seed) for seed in range(500)}) > 300


def test_a_mutation_stays_small():
    most = max(len(mutated(SOUND, seed)) for seed in range(5_000))
    assert most < len(SOUND) * 8 + ROUNDS_MAX * 3 * GROWN_BYTES_MAX + NESTING


def test_most_mutations_are_refused_and_none_raises_anything_else():
    refused = 0
    for seed in range(5_000):
        try:
            decode("user_actions", mutated(SOUND, seed))
        except Refused as error:
            refused += 1
            assert error.field
            assert error.reason
    assert 0.5 < refused / 5_000 < 0.99


def test_every_mutator_takes_what_every_other_makes():
    for seed in range(300):
        raw = mutated(b"", seed)
        for count in range(len(MUTATORS)):
            raw = mutated(raw, seed + count)[:10_000]
