"""The state's port and its implementations: memory (replay, tests, training) and Redis."""
