"""Thin shells around the runtime: the antiphon command and its sub-commands."""
