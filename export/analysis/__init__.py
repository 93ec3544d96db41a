"""Experiments on a checkpoint: how alike speech and writing are inside it, and what codes spell."""
