import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"event_id": f"e{n}", "user_id": "u", "item_id": "i", "action": "view", "ts_ms": n} for n in range(10)]
    (tmp_path / "user_actions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path)


def test_it_writes_a_file_that_loads_and_shows_it(folder):
    result = CliRunner().invoke(main, ["init", folder])
    assert result.exit_code == 0, result.output
    assert result.stdout == Path("worker.toml").read_text()
    assert [action.name for action in load(Path("worker.toml"), {}).actions] == ["view"]


def test_one_data_set_after_the_other_needs_no_force(folder):
    """What init itself wrote, and nobody changed, is no work to lose."""
    for _ in range(2):
        result = CliRunner().invoke(main, ["init", folder])
        assert result.exit_code == 0, result.output
    written = Path("worker.toml")
    written.write_text(written.read_text().replace("grade = 1", "grade = 2"))
    assert CliRunner().invoke(main, ["init", folder]).exit_code == 2
    assert "grade = 2" in written.read_text()


def test_an_existing_file_is_kept(folder):
    Path("worker.toml").write_text("mine")
    result = CliRunner().invoke(main, ["init", folder])
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert Path("worker.toml").read_text() == "mine"
