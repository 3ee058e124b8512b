"""Every metric of a worker, each declared once. Served at http://metrics_host:metrics_port/metrics.

Labels are bounded: topics and partitions of the deployment, fields of the schema, the levels, a handful of causes.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from features.schema import RECORD_OF_TOPIC
from pipeline.logs import get_logger
from recommender.recommend import NO_VERSION
from recommender.shadow import Divergence

log = get_logger(__name__)

_FAST_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_AGES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 3600, 86_400)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_CORRELATIONS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000)

# Where a micro-batch spends its time: apply (decode and state), answer (candidates, features, ranking), publish.
STAGE_S = Histogram("headrace_stage_seconds", "Time of one stage of a micro-batch", ["stage"], buckets=_FAST_S)
# Records in one micro-batch: 1 when idle, grows under load.
BATCH_RECORDS = Histogram("headrace_batch_records", "Records in one micro-batch", ["topic"], buckets=_SIZES)
# Records taken from the log, refused ones included; repeats after a restart count again here (not in the state).
RECORDS = Counter("headrace_records_total", "Records read", ["topic"])
# Wall clock minus the log's timestamp when the worker read the triggering record.
EVENT_AGE_S = Histogram("headrace_event_age_seconds", "Age of a trigger when read", buckets=_AGES_S)
# From reading the trigger to its encoded answer.
ANSWER_S = Histogram("headrace_answer_seconds", "Time in the worker of one answer", buckets=_FAST_S)
# Answers by level: full, partial, popular.
ANSWERS = Counter("headrace_answers_total", "Recommendations published", ["level"])
# Refused records by the field that broke them ($: the record as a whole).
DEAD_LETTERS = Counter("headrace_dead_letters_total", "Records refused", ["topic", "field"])
# Records whose key is not the user (or item) they speak of: applied all the same, but order is no longer promised.
MISKEYED = Counter("headrace_miskeyed_total", "Records under another key than their own", ["topic"])
# Offsets between what is answered and the end of the log as the newest fetch saw it.
LAG = Gauge("headrace_lag_records", "Records not yet answered", ["topic", "partition"])
# 1 while the worker waits for something outside; the cause is the label.
PAUSED = Gauge("headrace_paused", "1 while consumption waits for this", ["cause"])
# The store had less than this process saw applied: it lost data and is being filled again from the log.
HWM_REGRESSIONS = Counter("headrace_hwm_regressions_total", "Losses found in the store", ["topic"])
# Seeks after the first placement, by why: `store lost`, `slice out of turn`.
SEEKS = Counter("headrace_seeks_total", "Seeks back", ["why"])
# Output records that the broker refuses for good (too large); logged and left out.
OUTPUT_REFUSED = Counter("headrace_output_refused_total", "Output records given up", ["topic"])
# Answers whose ranking raised: a bug, with a traceback in the log; an empty list goes out, level popular, with the cause.
ANSWER_FAILURES = Counter("headrace_answer_failures_total", "Answers whose computation failed")
# Answers that lack what a candidate source would have known, because it raised; the cause stands in the answer.
SOURCE_FAILURES = Counter("headrace_source_failures_total", "Answers without this source's candidates", ["source"])
# Answers by what they were allowed to cost: the rungs of recommender/effort.py, `full` to `popular`.
EFFORTS = Counter("headrace_efforts_total", "Answers by the effort that was made", ["effort"])
# How many rungs of the overload ladder the worker stands below full effort; back to 0 by itself when the load is over.
OVERLOAD = Gauge("headrace_overload_rungs", "Rungs below full effort")
# Answers of a model without the reasons that are configured: `busy` (no time for them), `failed`.
REASONS_MISSING = Counter("headrace_reasons_missing_total", "Answers without the configured reasons", ["why"])
# The share of the shown items that the shadow would have shown too. Only the present shadow's version is kept.
SHADOW_OVERLAP = Histogram(
    "headrace_shadow_overlap", "Top-k overlap of shadow and answer", ["version"], buckets=_SHARES
)
# Spearman's rho of the two rankings of all candidates, ties by average rank; below 0 counts as 0, sums must not fall.
SHADOW_CORRELATION = Histogram(
    "headrace_shadow_correlation", "Rank correlation of shadow and answer", ["version"], buckets=_CORRELATIONS
)
# Answers that the shadow failed to score; the answers themselves lack nothing.
SHADOW_FAILURES = Counter("headrace_shadow_failures_total", "Answers that the shadow could not score")
# Which version scores as what: `serving` (shown) or `shadow`; `none` where no model does. One series a role.
MODEL_SERVING = Gauge("headrace_model_serving", "1 for the version that scores", ["role", "version"])
# 1 while the version that model_control names is not the one that scores: not there, or refused; the log says why.
MODEL_MISSING = Gauge("headrace_model_missing", "1 while the version that was named does not score", ["role"])
# Versions that failed a check when they were named; what served before goes on.
MODEL_REFUSED = Counter("headrace_model_refused_total", "Versions refused", ["role"])
# Records on model_control that break the contract; they change nothing.
CONTROL_REFUSED = Counter("headrace_control_refused_total", "Records on model_control refused")
# How long records have been waiting that nobody hands to the agent; at worker.watchdog_ms the worker starts itself again.
STALLED_S = Gauge("headrace_stalled_seconds", "Time that the consumer has been silent in spite of waiting records")
# How often this process started itself again, for `stalled`, `start stuck`, `loop blocked`, `consumer dead` or `store stuck`.
# Outlives it.
RESTARTS = Counter("headrace_restarts_total", "Restarts of the worker by itself", ["cause"])

_FIELDS = {field for kind in RECORD_OF_TOPIC.values() for field in kind.__struct_fields__} | {"key"}


def field_label(field: str) -> str:
    """The schema's field in a refusal's path, `$` for anything else: a producer must not invent label values.

    >>> field_label("item_ids[3]"), field_label("attributes.x"), field_label("evil")
    ('item_ids', 'attributes', '$')
    """
    name = field.split("[")[0].split(".")[0]
    return name if name in _FIELDS else "$"


def note_model(role: str, before: str | None, version: str | None) -> None:
    """Another version scores in this role now; None: none. The series of the one before goes."""
    with suppress(KeyError):
        MODEL_SERVING.remove(role, before or NO_VERSION)
    MODEL_SERVING.labels(role, version or NO_VERSION).set(1)


class ShadowFigures:
    """How far the present shadow's answers lie from ours; another version's figures go when a new one comes."""

    def __init__(self) -> None:
        self._version = ""

    def note(self, seen: Divergence) -> None:
        """Takes up one answer."""
        if seen.failure is not None:
            SHADOW_FAILURES.inc()
            return
        for metric, value in ((SHADOW_OVERLAP, seen.overlap), (SHADOW_CORRELATION, seen.correlation)):
            if seen.version != self._version:
                metric.clear()
            if not math.isnan(value):
                metric.labels(seen.version).observe(max(0.0, value))
        self._version = seen.version


LEADERS = "leaders"  # who waits for them holds up nobody else, and excuses nobody


class Pause:
    """What the worker waits for, said once when it changes: in the log and as `headrace_paused`. For any thread."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._lock = threading.Lock()

    def set(self, who: str, cause: str | None) -> None:
        """`who` waits because of `cause`; None: no longer."""
        with self._lock:  # the consumer's thread tells of the broker while the loop tells of the store
            self._set(who, cause)

    def _set(self, who: str, cause: str | None) -> None:
        before = self._causes.get(who)
        if before == cause:
            return
        if before is not None and cause is not None and _kind(before) == _kind(cause):
            self._causes[who] = cause  # a lost connection is called otherwise at each try: 6 lines a minute and part
            return
        if before is not None:
            del self._causes[who]
            if _short(before) not in map(_short, self._causes.values()):
                PAUSED.labels(_short(before)).set(0)
        if cause is None:
            log.info("goes on", part=who)
            return
        self._causes[who] = cause
        PAUSED.labels(_short(cause)).set(1)
        log.warning("waiting", part=who, cause=cause)

    @property
    def active(self) -> bool:
        """Whether anything waits that the whole worker waits for."""
        return bool(self._causes.keys() - {LEADERS})


def serve(host: str, port: int) -> int | None:
    """Starts the metrics endpoint; the port it listens on, None when `port` is 0 (off) or taken (said in the log)."""
    if port == 0:
        return None
    try:
        server, _ = start_http_server(port, addr=host)
    except OSError as error:  # a second worker on one machine still works, and says what it lacks
        log.warning("no metrics: set worker.metrics_port to a free port, one a worker", port=port, cause=str(error))
        return None
    bound = int(server.server_port)
    log.info("metrics", url=f"http://{host}:{bound}/metrics")
    return bound


def _kind(cause: str) -> str:
    """What it is, without how it was put this time: `store: ConnectionError`.

    >>> _kind("store: ConnectionError: Error 104 while writing"), _kind("broker: no answer within 2 s")
    ('store: ConnectionError', 'broker: no answer within 2 s')
    """
    return ": ".join(cause.split(": ", 2)[:2])


def _short(cause: str) -> str:
    """The cause's class: what stands before its first colon."""
    return cause.split(":", 1)[0][:40]
