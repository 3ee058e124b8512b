"""Progress is what gets committed: never behind what was answered, never ahead of it."""

from features.domain import Action, Domain
from features.schema import UserAction
from features.state import Fact, State
from features.store.memory import MemoryStore
from features.store.port import Part
from pipeline.progress import Progress

PART = Part("user_actions", 0)
DOMAIN = Domain(actions=(Action("view"),))


def applied(store, last):
    """A life that applied offsets 0..last and committed nothing."""
    state = State(store, DOMAIN)
    state.resume(PART, committed=None, log_start=0)
    facts = [Fact(n, UserAction(f"e{n}", "u", "i", "view", 1_700_000_000_000 + n)) for n in range(last + 1)]
    state.apply(PART, facts, last=last)
    state.beat()


def placed(progress, store, *, committed):
    resume = State(store, DOMAIN).resume(PART, committed=committed, log_start=0)
    progress.begin(PART, committed=committed, start=resume.start)
    return resume.start


def test_after_a_crash_before_the_first_commit_nothing_counts_as_answered():
    applied(store := MemoryStore(), 9)
    progress = Progress()
    assert placed(progress, store, committed=None) == 0
    assert progress.answered(PART) == 0


def test_a_placement_without_a_commit_keeps_what_this_process_answered():
    applied(store := MemoryStore(), 9)
    progress = Progress()
    placed(progress, store, committed=None)
    progress.mark(PART, 7)
    assert placed(progress, store, committed=None) == 0
    assert progress.answered(PART) == 7
