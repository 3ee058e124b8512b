"""A word on model_control goes out only once it stands in the history."""

import msgspec
import pytest

from pipeline import promoting
from pipeline.config import ConfigError, Settings
from recommender.model import promotions


@pytest.fixture
def settings(tmp_path):
    return msgspec.structs.replace(Settings(), model=msgspec.structs.replace(Settings().model, directory=str(tmp_path)))


@pytest.fixture
def named(monkeypatch):
    """The records that went out; the broker is tried in tests/integration/test_promoting.py."""
    found = []
    monkeypatch.setattr(promoting, "named", lambda kafka: {})
    monkeypatch.setattr(promoting, "name_version", lambda kafka, model, version, ts_ms: found.append((model, version)))
    return found


def test_where_the_history_cannot_be_written_nothing_is_named_and_the_operator_reads_why(settings, named, tmp_path):
    (tmp_path / "ranker" / promotions.FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"promotions\.jsonl: Is a directory; nothing was named"):
        promoting.set_shadow(settings, None, now_ms=5)
    assert named == []


def test_what_is_named_stands_in_the_history(settings, named, tmp_path):
    promoting.set_shadow(settings, None, now_ms=5)
    assert named == [("ranker.shadow", None)]
    assert [line.action for line in promotions.history(tmp_path / "ranker")] == ["shadow"]
