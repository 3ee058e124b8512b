"""The README is held against the code: commands, paths, settings, metrics and feature families."""

import re
from pathlib import Path

import prometheus_client
import pytest
from click.testing import CliRunner

from features.catalog import catalog
from features.domain import Action, Attribute, Context, Domain
from pipeline import telemetry
from pipeline.cli import COMMANDS, main
from pipeline.config import load
from recommender.candidates import SOURCES

README = Path("README.md").read_text()
CODE = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
EVERYTHING = Domain(
    actions=(Action("click"), Action("purchase", purchase=True)),
    attributes=(Attribute("genres", "set", rate=True), Attribute("brand", "category"), Attribute("size", "number")),
    context=(Context("device", "category"), Context("age", "number")),
    item_context=("price",),
)


def family_patterns():
    """The README's feature families as expressions: placeholders and stars stand for anything."""
    table = README.partition("## Features")[2].partition("## Metrics")[0]
    for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cell):
            text = f"*{name}" if name.startswith("_") else name
            yield name, re.compile(re.sub(r"<\w+>", "[a-z0-9_]+", text.replace("*", "[a-z0-9_]*")))


PATTERNS = dict(family_patterns())
FEATURES = catalog(EVERYTHING, sources=[source.name for source in SOURCES]).names


@pytest.mark.parametrize("line", re.findall(r"^headrace (.+?)\s*(?:#.*)?$", CODE, re.MULTILINE))
def test_a_command_of_the_readme_exists_with_its_options(line):
    words = line.split()
    if words[0] == "--config":
        words = words[2:]
    path = [word for word in words[:2] if re.fullmatch(r"[a-z-]+", word)]
    options = [word for word in words if word.startswith("--")]
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert all(option in result.output for option in options)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", README))))
def test_a_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE)


def test_every_option_of_the_demo_in_the_readme_exists():
    output = CliRunner().invoke(main, ["demo", "--help"]).output
    for arguments in re.findall(r'make demo ARGS="([^"]+)"', README):
        assert all(option in output for option in re.findall(r"--[a-z-]+", arguments))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name):
    assert re.search(rf"^\| `{name}\b", README, re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:features|recommender|pipeline|deploy|tests)/[\w./*]+)`", README)))
)
def test_a_path_of_the_readme_exists(path):
    assert list(Path().glob(path.rstrip("/")))


@pytest.mark.parametrize(
    "setting", sorted(set(re.findall(r"`((?:kafka|redis|recommend|overload|model|training|worker)\.\w+)`", README)))
)
def test_a_setting_of_the_readme_exists(setting):
    section, _, key = setting.partition(".")
    assert hasattr(getattr(load(None, {}), section), key)


def metrics():
    for value in vars(telemetry).values():
        if isinstance(value, prometheus_client.metrics.MetricWrapperBase):
            described = next(iter(value.describe()))
            yield described.name + ("_total" if described.type == "counter" else "")


@pytest.mark.parametrize("metric", sorted(metrics()))
def test_every_metric_is_documented(metric):
    assert f"| `{metric}`" in README


def test_no_metric_is_documented_that_does_not_exist():
    assert set(re.findall(r"^\| `(headrace_\w+)`", README, re.MULTILINE)) == set(metrics())


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_belongs_to_a_documented_family(feature):
    numbers = {"size"}  # `<number>` in the table
    assert feature in numbers or any(
        pattern.fullmatch(feature) for name, pattern in PATTERNS.items() if name != "<number>"
    )


@pytest.mark.parametrize("family", sorted(PATTERNS))
def test_every_documented_family_has_a_feature(family):
    assert any(PATTERNS[family].fullmatch(feature) for feature in FEATURES), family
