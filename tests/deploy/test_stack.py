"""docker-compose.yml, Dockerfile, Prometheus: parsed, linted, and true about the code they start."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import prometheus_client
import pytest
import yaml
from click.testing import CliRunner

from pipeline import telemetry
from pipeline.cli import main
from pipeline.config import load
from pipeline.demo.settings import SHOP

STACK = yaml.safe_load(Path("docker-compose.yml").read_text())
SERVICES = STACK["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = Path("deploy/Dockerfile").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load(Path("deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def tool(name):
    """A linter from the extra `lint`; absent: skip on a laptop, fail in CI."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name}: install the extra `lint`")
    return path


def test_compose_accepts_the_file():
    done = subprocess.run([tool("docker-compose"), "config", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hadolint_accepts_the_dockerfile():
    done = subprocess.run([tool("hadolint"), "deploy/Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_asks_for_more_than_it_needs(name):
    service = SERVICES[name]
    assert not {"privileged", "cap_add", "pid", "network_mode", "oom_score_adj"} & set(service)
    assert "no-new-privileges:true" in service["security_opt"]
    assert "@sha256" not in service["image"]
    assert service["networks"] == ["headrace"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "topics"])
def test_every_lasting_service_is_bounded_watched_and_restarted(name):
    service = SERVICES[name]
    assert "mem_limit" in service
    assert service["restart"] == "unless-stopped"
    assert "healthcheck" in service or name == "worker"  # the worker's stands in its image


def test_ports_are_published_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_redis_keeps_a_log_and_never_evicts():
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--aof-load-truncated no" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_network_has_a_fixed_subnet():
    assert STACK["networks"]["headrace"]["ipam"]["config"][0]["subnet"]


@pytest.mark.parametrize("name", OWN)
def test_the_settings_of_a_service_load(name):
    environ = SERVICES[name]["environment"]
    config = Path(environ["HEADRACE_CONFIG"].removeprefix("/app/"))
    baked = dict(re.findall(r"(HEADRACE_\w+)=(\S+)", DOCKERFILE))
    settings = load(config, {**baked, **environ})
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.worker.metrics_host == "0.0.0.0"
    assert settings.actions


@pytest.mark.parametrize("name", OWN)
def test_the_command_of_a_service_exists(name):
    service = SERVICES[name]
    if "entrypoint" in service:
        assert Path(service["entrypoint"][-1].replace(".", "/") + ".py").is_file()
    else:
        assert CliRunner().invoke(main, [*service["command"], "--help"]).exit_code == 0


def test_the_stack_s_settings_are_those_of_the_simulated_shop():
    assert tomllib.loads(Path("deploy/shop.toml").read_text()) == tomllib.loads(SHOP)


def test_the_image_builds_without_newer_builders_and_runs_unprivileged():
    assert not re.search(r"^# ?syntax=|<<|COPY --link|RUN --network|@sha256", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 10001", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert DOCKERFILE.count("FROM ${BASE_IMAGE}") == 2


def test_everything_the_image_copies_exists():
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all(Path(source).exists() for source in sources.split())


def exported():
    """Every series name that a worker's /metrics can have."""
    names = {metric.name for metric in prometheus_client.PROCESS_COLLECTOR.collect()}
    for value in vars(telemetry).values():
        if isinstance(value, prometheus_client.metrics.MetricWrapperBase):
            for metric in value.describe():
                suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
                names |= {metric.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_exist(rule):
    asked = set(re.findall(r"\b(?:headrace|process)_\w+", rule["expr"]))
    assert asked <= exported(), asked - exported()
    assert asked or "up{" in rule["expr"]
    assert rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_s_expression_parses(rule):
    parser = pytest.importorskip("promql_parser") if os.environ.get("CI") != "true" else __import__("promql_parser")
    parser.parse(rule["expr"])


def test_prometheus_scrapes_the_worker_where_it_listens():
    config = yaml.safe_load(Path("deploy/prometheus/prometheus.yml").read_text())
    assert all((Path("deploy/prometheus") / file).is_file() for file in config["rule_files"])
    [target] = config["scrape_configs"][0]["dns_sd_configs"]
    assert target["names"][0] in SERVICES
    assert target["port"] == load(None, {}).worker.metrics_port
