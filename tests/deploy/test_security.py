"""What must not be anywhere in the code, and what must not be reachable from elsewhere."""

import ast
import importlib.util
import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline.config import Settings

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("features", "recommender", "pipeline", "tests", "deploy")
    for path in (ROOT / folder).rglob("*.py")
)
MODULES_FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS_FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load",
    "yaml.full_load", "yaml.unsafe_load", "np.loadtxt", "np.genfromtxt", "pd.read_pickle",
}  # fmt: skip


def sins(source):
    """What of the forbidden a source does: (line, what)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in named if name.split(".")[0] in MODULES_FORBIDDEN)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS_FORBIDDEN:
                yield node.lineno, called
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle") and not _is_false(keyword.value):
                    yield node.lineno, f"{called}({keyword.arg}=...)"


def _is_false(value):
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("folder", ["features", "recommender", "pipeline", "tests", "deploy"])
def test_no_source_unpickles_evaluates_or_calls_a_shell(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == folder
        for line, what in sins(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from dill import loads", "eval('1')", "exec('x')", "subprocess.run('x', shell=True)",
     "np.load(p, allow_pickle=True)", "yaml.load(text)", "os.system('x')", "run('x', shell=flag)"],
)  # fmt: skip
def test_the_walk_sees_each_of_them(source):
    assert list(sins(source))


def test_sound_code_passes_the_walk():
    assert not list(sins("subprocess.run(['x'], shell=False)\nyaml.safe_load(text)\nnp.load(p)\nmodel.eval()"))


def test_every_listener_s_default_is_loopback():
    hosts = {
        f"{section}.{key}": value
        for section, values in msgspec.to_builtins(Settings()).items()
        if isinstance(values, dict)
        for key, value in values.items()
        if key.endswith("host")
    }
    assert set(hosts) >= {"worker.web_host", "worker.metrics_host"}
    assert set(hosts.values()) == {"127.0.0.1"}


def test_the_manual_s_addresses_are_loopback():
    manual = "\n".join(line.partition("#")[0] for line in (ROOT / "deploy" / "worker.toml").read_text().splitlines())
    addresses = re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", manual)
    assert addresses
    assert set(addresses) == {"127.0.0.1"}


def test_nothing_under_deploy_listens_everywhere_but_inside_a_container():
    """In a container's own network a process must listen on its address; what is published is loopback (test_stack)."""
    containers = {"Dockerfile", "stack-test.sh"}
    for path in (ROOT / "deploy").rglob("*"):
        if not path.is_file() or path.name in containers or path.suffix in {".json", ".png", ".md", ".pyc"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            text = line.partition("#")[0]
            assert "0.0.0.0" not in text, f"{path.relative_to(ROOT)}:{number}: {line}"


@pytest.mark.parametrize(("role", "group"), [("worker", "headrace"), ("consumer", "headrace-"), ("producer", None)])
def test_who_only_reads_answers_may_not_join_the_workers_group(role, group):
    done = subprocess.run(
        [ROOT / "deploy" / "kafka" / "acls.sh", role, "somebody"],
        env={"PATH": os.environ["PATH"], "KAFKA_ACLS": "echo", "BOOTSTRAP": "b:1"},
        capture_output=True,
        text=True,
        check=True,
    )
    granted = re.findall(r"--group (\S+) --resource-pattern-type prefixed", done.stdout)
    assert granted == ([group] if group else [])


def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 pinned packages audited"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', 1, "a 1: CVE-1"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 3, "not audited: 1 of 1"),
        ("Traceback", 3, "did not answer"),
    ],
)
def test_an_audit_that_could_not_ask_does_not_pass_for_one_that_found_nothing(answer, code, says):
    found, lines = audit().verdict(answer)
    assert found == code
    assert says in "\n".join(lines)
