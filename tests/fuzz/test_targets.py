"""Every target for a moment, in the normal run: its seeds, what mutations make of them, and what Hypothesis thinks of.

`make fuzz` runs one of them for long.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.commands import SEEDS, command_line
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import model_load, slow_targets, targets

MUTATIONS = 150
TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_mutations_of_its_seeds(name):
    target = TARGETS[name]
    for seed in target.seeds:
        target.run(seed)
        for number in range(MUTATIONS):
            target.run(mutated(seed, number))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(raw=st.binary(max_size=300))
def test_a_target_takes_any_bytes(name, raw):
    TARGETS[name].run(raw)


def test_any_command_line_ends_with_a_line_and_not_with_a_traceback():
    for seed in SEEDS:
        for number in range(12):
            command_line(seed + b" " + str(number).encode())


def test_a_damaged_model_that_its_manifest_vouches_for_never_kills_the_process():
    (sound,) = slow_targets()["model-load"].seeds
    for number in range(4):
        model_load(mutated(sound, number))
