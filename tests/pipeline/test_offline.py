import msgspec
import numpy as np
import pytest

from features.schema import IMPRESSIONS, USER_ACTIONS, Impression, UserAction
from pipeline import dataset
from pipeline.config import Model, Settings
from pipeline.offline import NEGATIVES_MAX, Source, labelled_rows, replayer, rows_within, settings_for

START_MS = 1_700_000_000_000
ITEMS = 130


@pytest.fixture
def folder(tmp_path):
    """Ten lists of 130 items, one click each."""
    log = []
    for number in range(10):
        ts_ms = START_MS + number * 60_000
        items = [f"i{item}" for item in range(ITEMS)]
        click = UserAction(f"e{number}", "u", f"i{number}", "click", ts_ms + 1, impression_id=f"m{number}")
        log += [(IMPRESSIONS, Impression(f"m{number}", "u", items, ts_ms)), (USER_ACTIONS, click)]
    dataset.write(tmp_path, [(topic, msgspec.json.encode(record)) for topic, record in log])
    return tmp_path


def rows_of(folder, **chosen):
    settings = settings_for(folder, Settings())
    return labelled_rows(Source(folder, settings), replayer(settings), **chosen)


def test_a_folder_says_what_its_events_mean_and_not_where_a_model_goes(folder, tmp_path):
    (folder / "worker.toml").write_text(
        'item_retention_days = 3\n[model]\ndirectory = "theirs"\n[[actions]]\nname = "click"\n'
    )
    mine = Settings(model=Model(directory="mine"))
    found = settings_for(folder, mine)
    assert (found.model.directory, found.item_retention_days) == ("mine", 3)
    assert [action.name for action in found.actions] == ["click"]
    (folder / "worker.toml").unlink()
    assert settings_for(folder, mine).model.directory == "mine"


def test_long_lists_are_thinned_to_learn_from_and_whole_to_judge_by(folder):
    assert set(rows_of(folder).groups.tolist()) == {NEGATIVES_MAX + 1}
    assert set(rows_of(folder, whole=True).groups.tolist()) == {ITEMS}


def test_questions_are_taken_only_as_far_as_their_rows_fit(folder, monkeypatch):
    monkeypatch.setattr("pipeline.offline.ROWS_MAX", 3 * ITEMS + 1)
    assert rows_of(folder, whole=True).query_ids == ("m7", "m8", "m9")
    assert rows_within(np.full(10, ITEMS)) == 3
