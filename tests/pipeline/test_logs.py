"""What a log line tells of an error, and what it keeps to itself."""

import logging

import pytest
import structlog

from pipeline import logs


@pytest.fixture
def root():
    """The root logger as it was, afterwards, and structlog too: a logger first used from here on would keep these."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_error_is_told_with_its_frames_and_without_their_variables(root, capsys, form):
    def log_in(password):
        raise ValueError("refused")

    logs.set_up(level="info", form=form)
    try:
        log_in("Sesame")
    except ValueError:
        logging.getLogger("somebody").exception("a step failed")
    said = capsys.readouterr().err
    assert "log_in" in said
    assert "refused" in said
    assert "Sesame" not in said.replace('log_in("Sesame")', "")
