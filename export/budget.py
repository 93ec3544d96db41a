"""What an export takes: bytes on disk, and memory to measure each engine."""

from __future__ import annotations

import math
from pathlib import Path

from antiphon.runtime.manifest import ENGINES

from .checkpoint import Checkpoint
from .plan import PARTS, Plan, part_shapes

PEAK_BYTES = {4: 1.0, 8: 1.95, 16: 5.0, 32: 5.0}  # per weight while an engine loads, measured
MEMORY = Path("/proc/meminfo")
_GRAPH_BYTES = 8192  # of the nodes around one weight, and of its alignment


def bundle_bytes(source: Checkpoint, plan: Plan, noise_frames: int) -> int:
    """Upper bound of a bundle's size on disk, without voices."""
    total = 4 * source.flow_config.mel_bins * noise_frames
    total += source.tokenizer_json.stat().st_size
    for part in PARTS:
        stored = plan.of(part)
        total += sum(weight.nbytes + _GRAPH_BYTES for weight in stored.values())
        others = [s for name, s in part_shapes(source, part).items() if name not in stored]
        total += sum(4 * math.prod(shape) + _GRAPH_BYTES for shape in others)
    return total


def parity_bytes(source: Checkpoint, plan: Plan) -> dict[str, int]:
    """Memory that loading each engine takes."""
    needed = {}
    for engine in ENGINES:
        stored = plan.of(engine)
        others = [s for name, s in part_shapes(source, engine).items() if name not in stored]
        needed[engine] = int(
            sum(weight.count * PEAK_BYTES[weight.scheme.bits] for weight in stored.values())
            + sum(math.prod(shape) for shape in others) * PEAK_BYTES[32]
        )
    return needed


def available_bytes() -> int | None:
    """Memory to be had without swapping; None where the system does not say."""
    try:
        lines = MEMORY.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
