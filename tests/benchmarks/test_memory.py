"""Memory is told for every stage of a conversation that really runs."""

from benchmarks.memory import measure, weights_gib


def test_a_conversation_is_measured_stage_by_stage(random_bundle):
    found = measure(random_bundle.path, [200, 300], codes=3, threads=1)
    names = [stage["stage"] for stage in found["stages"]]
    assert names[:3] == ["libraries loaded", "bundle opened", "session ready"]
    assert names[3:] == ["200 rows, speaking", "300 rows, speaking"]
    for stage, rows in zip(found["stages"][3:], (200, 300), strict=True):
        assert rows - 60 <= stage["rows"] <= rows
        assert stage["codes"] >= 1
        assert stage["think_ms"] > 0
    assert all(0 < stage["resident_gib"] < 10 for stage in found["stages"])


def test_weights_are_counted_by_their_files(random_bundle):
    engines = random_bundle.manifest.engines
    total = sum(file.size_bytes for entry in engines.values() for file in entry.data)
    assert abs(sum(weights_gib(random_bundle).values()) * 2**30 - total) < 0.02 * 2**30
