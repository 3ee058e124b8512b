"""`python -m tests.fuzz --target T --seconds N`: one target under atheris (coverage-guided), or `--list`.

A crash is written as `crash-...` with the input that did it. Where atheris has no wheel it says so and ends with 3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

INPUT_BYTES_MAX = 1 << 16
NO_ATHERIS = 3


def main() -> None:
    """Reads the arguments, instruments, fuzzes; never returns."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=")
    parser.add_argument("--target", help="which reader; see --list")
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument(
        "--corpus", type=Path, help="a folder of inputs that is kept and grows; absent: a temporary one"
    )
    parser.add_argument("--list", action="store_true", help="name the targets")
    chosen = parser.parse_args()
    try:
        import atheris
    except ImportError as error:
        sys.stderr.write(f"not fuzzed: atheris is not here, it has wheels for x86-64 Linux only ({error})\n")
        sys.exit(NO_ATHERIS)
    with atheris.instrument_imports(include=["features", "recommender", "pipeline", "tests.fuzz"]):
        from tests.fuzz.targets import slow_targets, targets
    found = targets() | slow_targets()
    if chosen.list or chosen.target not in found:
        sys.stdout.write("\n".join(found) + "\n")
        sys.exit(0 if chosen.list else 2)
    target = found[chosen.target]
    corpus = chosen.corpus or Path(tempfile.mkdtemp(prefix="headrace-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = (f"-max_total_time={chosen.seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=30", "-rss_limit_mb=1500")
    atheris.Setup([sys.argv[0], str(corpus), *limits], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
