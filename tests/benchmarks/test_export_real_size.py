"""What watches an export sees its memory, its time and its disk, part by part."""

import subprocess
import sys
import time

from benchmarks.export_real_size import Watch, disk_bytes_per_s, drop_cache
from benchmarks.process import Process

WORK = """
import sys, time
sys.stdin.readline()
held = bytearray(120_000_000)
open(sys.argv[1], "wb").write(held)
print("done", flush=True)
sys.stdin.readline()
del held
start = time.process_time()
while time.process_time() - start < 0.3:
    pass
print("done", flush=True)
sys.stdin.readline()
"""


def test_a_process_is_watched_part_by_part(tmp_path):
    command = [sys.executable, "-c", WORK, str(tmp_path / "written")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        watch = Watch(process.pid)
        for name in ("memory", "processor"):
            watch.phase(name)
            process.stdin.write("\n")
            assert process.stdout.readline() == "done\n"
        time.sleep(0.2)  # until it has been looked at
        process.stdin.write("\n")
        assert process.wait() == 0
        phases = {phase["part"]: phase for phase in watch.close()}
    assert list(phases) == ["start", "memory", "processor"]
    assert phases["start"]["peak_gb"] < 0.1 < phases["memory"]["peak_gb"]
    assert phases["memory"]["written_gb"] >= 0.12
    assert phases["processor"]["cpu_seconds"] >= 0.25


def test_a_peak_can_be_forgotten():
    process = Process()
    held = bytearray(100_000_000)
    assert process.usage().peak_bytes > 100_000_000
    del held
    process.forget_peak()
    memory = process.memory()
    assert memory["peak_gib"] < memory["resident_gib"] + 0.05
    assert 0 < memory["anonymous_gib"] <= memory["resident_gib"]


def test_a_cold_read_goes_through_every_file(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.safetensors", "deep/b.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    assert drop_cache(tmp_path) == 3000
    assert disk_bytes_per_s(tmp_path) > 0
