"""A paced producer in a process of its own: `python -m tests.benchmarks.flood BOOTSTRAP TOPIC SECONDSxRATE ...`.

Sends triggers of random users phase after phase; prints one JSON line a phase: begin, end (epoch ms) and records. Where
it cannot keep up, the line says so by its count; nothing is left out silently.
"""

from __future__ import annotations

import json
import sys
import time
from random import Random

from confluent_kafka import Producer

from tests.integration.worlds import action

USERS, ITEMS = 3_000, 2_000
TICK_S = 0.01


def main(bootstrap: str, topic: str, *phases: str) -> None:
    """See the module."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    random, failed, run = Random(7), [0], time.time_ns()  # a run's events are its own: a repeat is cheaper

    def report(error: object, _: object) -> None:
        failed[0] += error is not None

    for number, phase in enumerate(phases):
        seconds, rate = (float(part) for part in phase.split("x"))
        begun_s, begun_ms, sent = time.monotonic(), time.time_ns() // 1_000_000, 0
        while (passed_s := time.monotonic() - begun_s) < seconds:
            due = int(passed_s * rate)
            while sent < due:
                user = random.randrange(USERS)
                item = f"i{(user + random.randrange(20)) % ITEMS}"
                key, value = action(f"f{run}-{number}-{sent}", f"u{user}", item)
                try:
                    producer.produce(topic, value, key, on_delivery=report)
                except BufferError:
                    break
                sent += 1
            producer.poll(TICK_S)
        line = {"begin_ms": begun_ms, "end_ms": time.time_ns() // 1_000_000, "sent": sent}
        print(json.dumps(line), flush=True)
    if producer.flush(60) or failed[0]:
        sys.exit(f"{failed[0]} records failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
