import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import COMMANDS, main


@pytest.fixture
def run():
    def invoke(*args, **kwargs):
        return CliRunner().invoke(main, list(args), **kwargs)

    return invoke


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_names_every_command(run):
    output = run("--help").output
    assert all(name in output for name in COMMANDS)


def test_help_imports_none_of_the_heavy_packages():
    code = (
        "import sys, pipeline.cli; from click.testing import CliRunner;"
        "CliRunner().invoke(pipeline.cli.main, ['--help']);"
        "print(sorted({'faust', 'lightgbm', 'numpy', 'confluent_kafka', 'redis'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_wrong_setting_is_one_line_and_exit_2(run, tmp_path):
    wrong = tmp_path / "worker.toml"
    wrong.write_text("[kafka]\nbootstrp = 'x'\n")
    result = run("--config", str(wrong), "topics", "check")
    assert result.exit_code == 2
    assert "bootstrp" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_configuration_can_come_from_the_environment(run, tmp_path):
    result = run("topics", "check", env={"HEADRACE_CONFIG": str(tmp_path / "absent.toml")})
    assert result.exit_code == 2
    assert "absent.toml: no such file" in result.stderr


def test_debug_shows_the_traceback(run, tmp_path):
    result = run("--debug", "--config", str(tmp_path / "absent.toml"), "topics", "check")
    assert result.exit_code == 1
    assert result.exception is not None


def test_a_worker_that_does_not_know_what_events_mean_refuses_to_start(run):
    result = run("worker")
    assert result.exit_code == 2
    assert "headrace init" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("worker",), ("doctor",), ("state", "digest")])
def test_a_password_file_that_is_not_there_is_one_line_and_exit_2(run, tmp_path, command):
    config = tmp_path / "worker.toml"
    config.write_text('[redis]\npassword_file = "absent"\n[[actions]]\nname = "view"\n')
    result = run("--config", str(config), *command)
    assert result.exit_code == 2
    assert "redis.password_file" in result.stderr
    assert result.stderr.count("\n") == 1
