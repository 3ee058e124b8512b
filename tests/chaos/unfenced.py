"""A worker without its fence, so that the suite can be seen to fail: `python -m tests.chaos.unfenced --config C worker`.

It starts where Kafka's commit stands and believes that nothing at or after it is applied, and the store's scripts
compare neither marks nor versions before they write. Everything else is the product as it is.
"""

from __future__ import annotations

from hashlib import sha1

from features.state import Resume, State
from features.store import redis_scripts
from features.store.port import PHASES, Part

COMPARES = {
    redis_scripts.APPLY_USERS: ("if mark ~= ARGV[2] then", "if #losers > 0 then"),
    redis_scripts.APPLY_ITEMS: ("if mark ~= ARGV[2] then",),
    redis_scripts.BEAT: ("if mark ~= ARGV[at + 1] then",),
}


def take_the_fence_away() -> None:
    """Patches scripts and start rule. Raises `AssertionError` when a script no longer compares as it did."""
    for script, lines in COMPARES.items():
        for line in lines:
            assert script.text.count(line) == 1, f"the script has no {line!r}: this launcher has to follow"
            script.text = script.text.replace(line, "if false then")
        script.sha = sha1(script.text.encode(), usedforsecurity=False).hexdigest()
    resume_by_marks = State.resume

    def resume_by_commit(
        self: State, part: Part, *, committed: int | None, log_start: int, asks_only: bool = False
    ) -> Resume:
        resume_by_marks(self, part, committed=committed, log_start=log_start, asks_only=asks_only)
        start, held = log_start if committed is None else committed, self._held[part]
        held.marks = {phase: [start - 1] * self.layout.shards for phase in PHASES}
        held.done = start - 1
        return Resume(start, start - 1)

    State.resume = resume_by_commit  # type: ignore[method-assign]


if __name__ == "__main__":
    from pipeline.cli import main

    take_the_fence_away()
    main()
