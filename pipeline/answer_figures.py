"""What answers tell the operator: counts by level, effort and what they lack, ages, the shadow's divergence."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import telemetry
from pipeline.answers import Stamp, age_ms
from pipeline.logs import get_logger
from pipeline.reading import Ask
from recommender.effort import Effort
from recommender.recommend import NO_REASONS, Ranked

log = get_logger(__name__)


class AnswerFigures:
    """Owns what has to be remembered from answer to answer: which sources fail, whose divergence is shown."""

    def __init__(self) -> None:
        self._failing: frozenset[str] = frozenset()  # sources that failed in the newest answers, in words
        self._shadow = telemetry.ShadowFigures()

    def note(self, asks: Sequence[Ask], ranked: Sequence[Ranked], *, effort: Effort, stamp: Stamp) -> None:
        """Takes up the answers of one go."""
        telemetry.EFFORTS.labels(effort.name).inc(len(ranked))
        for ask, answer in zip(asks, ranked, strict=True):
            telemetry.ANSWERS.labels(answer.level).inc()
            telemetry.ANSWER_S.observe(stamp.latency_ms / 1000)
            telemetry.EVENT_AGE_S.observe(age_ms(ask, stamp) / 1000)
            if why := missing_reasons(answer.cause):
                telemetry.REASONS_MISSING.labels("busy" if why == "busy" else "failed").inc()
            if answer.shadow is not None:
                self._shadow.note(answer.shadow)
        self._note_failures(ranked)

    def _note_failures(self, ranked: Sequence[Ranked]) -> None:
        """Counts answers without a source that failed; said when the failures change, not with every event."""
        failures = [each for answer in ranked for each in failed_sources(answer.cause)]
        for failure in failures:
            telemetry.SOURCE_FAILURES.labels(failure.split(" ", 1)[0]).inc()
        if (failing := frozenset(failures)) != self._failing:
            self._failing = failing
            log.warning("candidate sources fail" if failing else "all candidate sources work", causes=sorted(failing))


def failed_sources(cause: str | None) -> list[str]:
    """What an answer's cause says of sources that failed.

    >>> failed_sources("co_visited failed: KeyError; no model"), failed_sources(None)
    (['co_visited failed: KeyError'], [])
    """
    return [each for each in (cause or "").split("; ") if " failed: " in each]


def missing_reasons(cause: str | None) -> str:
    """Why an answer has no reasons, though they are on; empty where it has.

    >>> missing_reasons("no reasons: busy"), missing_reasons("no model")
    ('busy', '')
    """
    told = [each for each in (cause or "").split("; ") if each.startswith(f"{NO_REASONS}: ")]
    return told[0].removeprefix(f"{NO_REASONS}: ") if told else ""
