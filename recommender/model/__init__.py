"""Models as artefacts: what a directory must hold, how one is trained, which one serves."""
