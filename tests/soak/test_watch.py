"""A long run's verdict: what a process holds is read, and a slope tells a leak from a spike."""

import os
from pathlib import Path

import numpy as np

from tests.soak.watch import Watched, grew, slope_per_hour, yardstick_ms


def test_a_process_is_read_and_one_more_open_file_shows():
    watched = Watched("me", os.getpid())
    watched.look(0.0)
    with Path(__file__).open():
        watched.look(1.0)
    first, second = watched.looks
    assert first.resident_mb > 1
    assert second.files == first.files + 1


def test_work_that_a_process_did_shows_in_its_cpu():
    watched = Watched("me", os.getpid())
    watched.look(0.0)
    worked_s = sum(yardstick_ms() for _ in range(20)) / 1000
    watched.look(1.0)
    first, second = watched.looks
    assert second.cpu_s - first.cpu_s > worked_s - 0.05  # the clock ticks in hundredths


def test_one_spike_is_no_slope_and_a_steady_leak_is_one():
    at_s = np.arange(0.0, 3600, 60)
    spike = np.where(at_s == 1800, 500.0, 100.0)
    assert slope_per_hour(at_s, spike)[0] == 0
    np.testing.assert_allclose(slope_per_hour(at_s, 100 + at_s / 360), (10.0, 10.0))


def figures(*, worker_mb_per_hour=0.0, redis_files=12.0):
    flat = {"first": 57.0, "last": 57.0, "per_hour": 0.0}
    return {
        "worker_resident_mb": {**flat, "per_hour": worker_mb_per_hour},
        "worker_files": flat,
        "redis_resident_mb": flat,
        "redis_files": {**flat, "first": 12.0, "last": redis_files},
    }


def test_growth_beyond_the_bounds_is_named():
    assert grew(figures(worker_mb_per_hour=4.9, redis_files=17.0), mb_per_hour_max=5.0) == []
    assert grew(figures(worker_mb_per_hour=28.0, redis_files=18.0), mb_per_hour_max=5.0) == [
        "worker: memory grew by 28.0 MB an hour, at most 5.0 are allowed",
        "redis: 12 open files became 18",
    ]
