"""The projector process, and what the command line does to read models: the composition roots above the engine."""
