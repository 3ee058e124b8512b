"""How good a ranking was: metrics over queries, fair to ties."""
