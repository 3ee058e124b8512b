"""The trainer: one command after the other, a failure told once."""

import sys
import time

import pytest

from pipeline.demo.trainer import Trainer


def python(code):
    return [sys.executable, "-c", code]


@pytest.fixture
def said():
    return []


def ended(trainer):
    until_s = time.monotonic() + 60
    while trainer.status == "in training" and time.monotonic() < until_s:
        trainer.check()
        time.sleep(0.02)
    return trainer.status


def test_the_model_is_promoted_after_the_training_and_not_before(tmp_path, said):
    made = tmp_path / "model"
    commands = [python(f"open({str(made)!r}, 'w')"), python(f"open({str(made)!r})")]
    trainer = Trainer(commands, log=tmp_path / "log", say=said.append)
    assert ended(trainer) == "promoted"
    trainer.check()
    assert said == []


@pytest.mark.parametrize("failing", [0, 1])
def test_a_command_that_fails_ends_it_and_is_told_once_with_its_last_words(tmp_path, said, failing):
    commands = [python("pass"), python("pass")]
    commands[failing] = python("import sys; sys.exit('too few lists')")
    trainer = Trainer(commands, log=tmp_path / "log", say=said.append)
    assert ended(trainer) == "none (training failed)"
    trainer.check()
    assert len(said) == 1
    assert "too few lists" in said[0]
    trainer.stop()
