"""`python -m pipeline.cli` is `headrace`."""

from pipeline.cli import main

main(prog_name="headrace")
