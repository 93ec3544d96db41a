"""Checkpoint to bundle: the reference model, graph building, weight streaming, parity."""
