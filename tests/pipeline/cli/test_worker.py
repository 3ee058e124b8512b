"""What `headrace worker` does before the worker runs."""

import signal

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.cli import worker


@pytest.fixture(autouse=True)
def handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_worker_that_still_asks_for_its_broker_ends_when_it_is_told_to(tmp_path, monkeypatch):
    def told_to_stop(_):
        assert callable(signal.getsignal(signal.SIGTERM))  # pid 1 has no default
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(worker, "admit", told_to_stop)
    monkeypatch.setattr(worker.logs, "set_up", lambda **_: None)  # it is for the whole process, other tests too
    config = tmp_path / "worker.toml"
    config.write_text('[[actions]]\nname = "view"\n')
    done = CliRunner().invoke(cli.main, ["--config", str(config), "worker"])
    assert (done.exit_code, done.exception) == (0, None), done.output
