"""Known vulnerabilities of the pinned packages, by pip-audit: `make audit`.

pip-audit asks PyPI's or OSV's service; there is no offline database worth the name (safety-db on PyPI ends in 2021). A
package that the service could not be asked about counts as not audited, which pip-audit by itself passes over. Exit 0:
all audited, none known; 1: known vulnerabilities; 3: not audited, or not all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOUND, NOT_AUDITED = 1, 3
ASK = (
    "-m",
    "pip_audit",
    "--no-deps",
    "--disable-pip",
    "--progress-spinner",
    "off",
    "--format",
    "json",
    "--timeout",
    "15",
)
SHOWN = 5


def verdict(answer: str) -> tuple[int, list[str]]:
    """The exit code and the lines to say of pip-audit's JSON; text that is none: not audited.

    >>> verdict('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}')
    (0, ['1 pinned packages audited, no known vulnerability'])
    >>> verdict('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}')[0], verdict("no route")[0]
    (3, 3)
    """
    try:
        packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return NOT_AUDITED, ["not audited: the vulnerability service did not answer"]
    bad = [f"{each['name']} {each['version']}: {vuln['id']}" for each in packages for vuln in each.get("vulns", ())]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    lines = list(bad)
    if skipped:
        lines.append(
            f"not audited: {len(skipped)} of {len(packages)} pinned packages ({', '.join(skipped[:SHOWN])} ...)"
        )
    if not lines:
        lines.append(f"{len(packages)} pinned packages audited, no known vulnerability")
    return FOUND if bad else NOT_AUDITED if skipped else 0, lines


def main() -> None:
    """Asks about constraints.txt and says what came of it."""
    pins = Path(__file__).resolve().parents[1] / "constraints.txt"
    done = subprocess.run([sys.executable, *ASK, "-r", str(pins)], capture_output=True, text=True, check=False)
    code, lines = verdict(done.stdout)
    sys.stdout.write("\n".join(lines) + "\n")
    if code == NOT_AUDITED and done.stderr.strip():
        sys.stderr.write(f"pip-audit: {done.stderr.strip().splitlines()[-1][:300]}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
