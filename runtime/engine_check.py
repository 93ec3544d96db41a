"""Is a graph what the manifest says and the rest of the bundle needs? Asked before loading it."""

from __future__ import annotations

from pathlib import Path

from .errors import CorruptFile
from .manifest import Manifest
from .onnx_file import OnnxFacts, read_facts
from .tensors import TensorSpec

Shape = tuple[int | str, ...]

_STANDARD = {"", "ai.onnx"}
_WAY_OUT = "export the bundle again"


def check_engine(folder: Path, name: str, manifest: Manifest) -> None:
    """Raise CorruptFile unless engine `name` may be loaded and fits the manifest."""
    entry = manifest.engines[name]
    file = entry.file.file
    facts = read_facts(folder / file)
    if foreign := sorted(facts.domains - _STANDARD):
        # a foreign operator may load code or files of its own
        raise CorruptFile(f"{file}: operators of {foreign}, expected standard ones; {_WAY_OUT}")
    place = Path(file).parent  # where the engine library looks for external data
    data = [d for d in entry.data if Path(d.file).parent == place]
    _check_external(file, facts, {Path(d.file).name: d.size_bytes for d in data})
    for kind, declared, found in (
        ("inputs", entry.inputs, facts.inputs),
        ("outputs", entry.outputs, facts.outputs),
    ):
        _check_same(f"{file}: {kind}", declared, found)
    specs = {spec.name: spec for spec in (*entry.inputs, *entry.outputs)}
    for tensor, shape in _needed(name, manifest).items():
        spec = specs.get(tensor)
        if spec is None or not _fits(spec.shape, shape):
            raise CorruptFile(
                f"{file}: {tensor} is {'absent' if spec is None else list(spec.shape)}, expected "
                f"{list(shape)} by the sizes in manifest.json; {_WAY_OUT}"
            )


def _check_external(file: str, facts: OnnxFacts, sizes: dict[str, int]) -> None:
    """External data lies inside the data files listed for this engine, which are hashed."""
    for entry in facts.external:
        location = entry.get("location", "")
        if location not in sizes:
            raise CorruptFile(
                f"{file}: weights in {location[:80]!r}, expected one of {sorted(sizes)}, the "
                "data files listed for this engine; do not use this bundle"
            )
        span = [entry.get(key, "0") for key in ("offset", "length")]
        numbers = all(n.isascii() and n.isdigit() and len(n) < 20 for n in span)
        if not numbers or sum(map(int, span)) > sizes[location]:
            raise CorruptFile(
                f"{file}: weights at {' + '.join(span)[:80]} pass the end of {location} "
                f"({sizes[location]} bytes); {_WAY_OUT}"
            )


def _check_same(what: str, declared: tuple[TensorSpec, ...], found: list[TensorSpec]) -> None:
    def key(spec: TensorSpec) -> str:
        return spec.name

    for want, got in zip(sorted(declared, key=key), sorted(found, key=key), strict=False):
        if want != got:
            raise CorruptFile(
                f"{what} have {got.name} {got.dtype}{list(got.shape)}, the manifest says "
                f"{want.name} {want.dtype}{list(want.shape)}; {_WAY_OUT}"
            )
    if len(declared) != len(found):
        raise CorruptFile(f"{what}: {len(found)}, the manifest says {len(declared)}; {_WAY_OUT}")


def _fits(shape: Shape, needed: Shape) -> bool:
    """Same rank, and same sizes wherever `needed` has a number."""
    return len(shape) == len(needed) and all(
        n == s for s, n in zip(shape, needed, strict=True) if isinstance(n, int)
    )


def _needed(name: str, m: Manifest) -> dict[str, Shape]:
    """Tensors of an engine whose sizes the manifest fixes."""
    lm, mel = m.lm, m.flow.mel_bins
    rows: Shape = (1, "S", lm.hidden_size)
    if name == "trunk":
        return {"embeddings": rows, "hidden": rows} | _attention(m, lm.shared_layers)
    if name in ("speech_branch", "text_branch"):
        vocab = lm.audio_vocab if name == "speech_branch" else lm.text_vocab
        branch: dict[str, Shape] = {"hidden": rows, "logits": (1, vocab)}
        return branch | _attention(m, lm.modality_layers)
    others: dict[str, dict[str, Shape]] = {
        "encoder": {"log_mel": (1, m.encoder.mel_bins, "T"), "codes": (1, "n")},
        "flow_encoder": {
            "embedding": (1, m.flow.speaker_dim),
            "mu": (1, mel, "F"),
            "speaker": (1, mel),
        },
        "flow_step": {"x": (1, mel, "F"), "mu": (1, mel, "F"), "x_out": (1, mel, "F")},
        "vocoder": {
            "mel": (1, mel, "T"),
            "noise": (1, "S", m.vocoder.harmonics + 1),
            "pcm": (1, "S"),
        },
    }
    return others.get(name, {})


def _attention(m: Manifest, layers: int) -> dict[str, Shape]:
    half = m.lm.head_dim // 2
    cache: Shape = (1, m.lm.kv_heads, "C", m.lm.head_dim)
    names = [f"{kind}_{i}" for i in range(layers) for kind in ("key", "value")]
    shapes: dict[str, Shape] = {"cos": (1, "S", half), "sin": (1, "S", half), "mask": ("S", "C")}
    return shapes | {n: cache for n in names} | {f"{n}_out": cache for n in names}
