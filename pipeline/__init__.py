"""The edges: Kafka in, Kafka out, HTTP, command line. `pipeline/app.py` is the only place that knows everybody."""
