"""The long run: a steady rate on real servers, memory, files and latency watched. `make soak`, `tests/soak/__main__.py`."""
