"""Commands that measure, and what they need: `python -m benchmarks.NAME` in the repository."""
