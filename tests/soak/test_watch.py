"""A long run's verdict: what a process holds is read, and a slope tells a leak from a spike."""

import os
from pathlib import Path

import numpy as np

from tests.soak.watch import Watched, slope_per_hour


def test_a_process_is_read_and_one_more_open_file_shows():
    watched = Watched("me", os.getpid())
    watched.look(0.0)
    with Path(__file__).open():
        watched.look(1.0)
    first, second = watched.looks
    assert first.resident_mb > 1
    assert second.files == first.files + 1


def test_one_spike_is_no_slope_and_a_steady_leak_is_one():
    at_s = np.arange(0.0, 3600, 60)
    spike = np.where(at_s == 1800, 500.0, 100.0)
    assert slope_per_hour(at_s, spike)[0] == 0
    np.testing.assert_allclose(slope_per_hour(at_s, 100 + at_s / 360), (10.0, 10.0))
