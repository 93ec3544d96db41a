"""What an export takes: bytes on disk, and memory to measure each engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from antiphon.quant.schemes import INT8, SCHEMES, Scheme

from .checkpoint import Checkpoint, FileKey
from .reference.flow import NOISE_FRAMES

HEAD = "lm_head"
PARTS: dict[str, tuple[FileKey, tuple[str, ...]]] = {  # where an engine's weights come from
    "trunk": ("lm", ("model.shared_block.",)),
    "speech_branch": ("lm", ("model.audio_block.", f"audio_{HEAD}.")),
    "text_branch": ("lm", ("model.text_block.", f"text_{HEAD}.")),
    "encoder": ("tokenizer", ("",)),
    "flow_encoder": ("flow", ("input_embedding.", "spk_embed_affine_layer.", "encoder")),
    "flow_step": ("flow", ("decoder.",)),
    "vocoder": ("hift", ("",)),
}
PEAK_BYTES = {4: 1.0, 8: 1.95, 16: 5.0, 32: 5.0}  # per weight while an engine loads, measured
MEMORY = Path("/proc/meminfo")


def bundle_bytes(source: Checkpoint, kept: Scheme) -> int:
    """Upper bound of a bundle's size on disk."""
    lm = source.value_counts("lm")
    tables = sum(count for name, count in lm.items() if "embed" in name)
    heads = tables  # as many values
    layers = sum(lm.values()) - tables - heads
    coded = (layers * kept.bits + heads * max(kept.bits, INT8.bits)) / 8
    codec: tuple[FileKey, ...] = ("tokenizer", "flow", "hift")
    others = sum(sum(source.value_counts(key).values()) for key in codec)
    noise = source.flow_config.mel_bins * NOISE_FRAMES
    return int(1.2 * coded) + 2 * tables + 4 * (others + noise)


def parity_bytes(source: Checkpoint, schemes: Mapping[str, str]) -> dict[str, int]:
    """Memory that loading each engine takes; `schemes` says how its weights are stored."""
    needed = {}
    for engine, scheme in schemes.items():
        key, prefixes = PARTS[engine]
        bits = SCHEMES[scheme].bits
        needed[engine] = sum(
            int(count * PEAK_BYTES[max(bits, INT8.bits) if HEAD in name else bits])
            for name, count in source.value_counts(key).items()
            if name.startswith(prefixes)
        )
    return needed


def available_bytes() -> int | None:
    """Memory to be had without swapping; None where the system does not say."""
    try:
        lines = MEMORY.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
