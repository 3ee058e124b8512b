"""The simulated shop against a configured Kafka, without an end: the traffic of docker-compose's profile `demo`.

`python -m pipeline.demo.feed`; HEADRACE_CONFIG and HEADRACE_* say where Kafka is. The shop does not look at the
recommendations here (`headrace demo` closes that loop); watch them with `headrace tail`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from pathlib import Path

from pipeline.config import load
from pipeline.demo.plan import simulated
from pipeline.kafka.delivery import Delivery
from pipeline.publishing import Pace

SEED = 1
RATE = 50.0
POLL_S = 0.05


def main() -> None:
    """Publishes until told to stop, then waits for the last delivery reports."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path = os.environ.get("HEADRACE_CONFIG")
    settings = load(Path(path) if path else None, os.environ)
    with Delivery(settings.kafka) as delivery:
        for phase in simulated(seed=SEED, rate=RATE).phases(deque()):
            pace = Pace(rate=phase.rate, speedup=None)
            for post in phase.posts:
                end_s = time.monotonic() + pace.wait_s(None)
                while (left_s := end_s - time.monotonic()) > 0:
                    delivery.poll(0)
                    time.sleep(min(left_s, POLL_S))
                delivery.send(phase.name, settings.kafka.topic_prefix + post.topic, key=post.key, value=post.raw)


if __name__ == "__main__":
    main()
