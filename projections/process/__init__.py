"""Composition roots above the engine: the projector process, and the command line's operations on read models."""
