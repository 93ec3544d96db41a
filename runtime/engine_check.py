"""Is a graph what the manifest says and the rest of the bundle needs? Asked before loading it."""

from __future__ import annotations

from pathlib import Path

from .errors import CorruptFile
from .fbank import BINS as FBANK_BINS
from .manifest import EngineEntry, Manifest
from .onnx_file import OnnxFacts, read_facts
from .tensors import TensorSpec

Shape = tuple[int | str, ...]
Shapes = dict[str, Shape]

FIXED = 0  # a size that the graph states as a number, whatever it is
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
    if name == "speaker":
        if misfit := speaker_misfit(facts, manifest.flow.speaker_dim):
            raise CorruptFile(f"{file}: {misfit}; {_WAY_OUT}")
        return
    inputs, outputs = needed(name, manifest)
    for prefix in {"flow_encoder": ("token_", "frame_"), "vocoder": ()}.get(name, ("",)):
        caches = _caches(prefix, entry, manifest, name)
        inputs, outputs = inputs | caches, outputs | _out(caches)
    _check_shapes(f"{file}: inputs", entry.inputs, inputs)
    _check_shapes(f"{file}: outputs", entry.outputs, outputs)


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


def speaker_misfit(facts: OnnxFacts, speaker_dim: int) -> str:
    """Why a graph cannot be the speaker engine; empty if it can.

    The one engine that is not ours: names are free, sizes may be symbols, and the time must be
    one (contract G). A file may also leave the shape of its output unsaid; what comes out is
    checked at enrolment.
    """
    given, made = facts.inputs, facts.outputs[:1]  # further outputs are ignored
    fits = len(given) == 1 and _may_be(given[0], (1, "T", FBANK_BINS))
    if fits and made and (not made[0].shape or _may_be(made[0], (1, speaker_dim))):
        return ""
    got = ", ".join(f"{s.dtype}{list(s.shape)}" for s in (*given[:4], *made))
    return (
        f"{got or 'nothing'}, expected one input float32[1, T, {FBANK_BINS}], any T, and an "
        f"output float32[1, {speaker_dim}]"
    )


def _may_be(spec: TensorSpec, wanted: Shape) -> bool:
    """Float32 of the same rank; a symbol, or the number that `wanted` has there."""
    return (spec.dtype, len(spec.shape)) == ("float32", len(wanted)) and all(
        isinstance(s, str) or s == n for s, n in zip(spec.shape, wanted, strict=True)
    )


def _check_shapes(what: str, specs: tuple[TensorSpec, ...], shapes: Shapes) -> None:
    """These tensors and no others: the runtime feeds and fetches exactly them."""
    found = {spec.name: spec.shape for spec in specs}
    if unknown := sorted(found.keys() - shapes.keys()):
        raise CorruptFile(f"{what}: {', '.join(unknown)[:80]} is unknown; {_WAY_OUT}")
    for tensor, shape in shapes.items():
        if tensor not in found or not _fits(found[tensor], shape):
            got = list(found[tensor]) if tensor in found else "absent"
            raise CorruptFile(
                f"{what}: {tensor} is {got}, expected {list(shape)} by the sizes in "
                f"manifest.json; {_WAY_OUT}"
            )


def _fits(shape: Shape, wanted: Shape) -> bool:
    """Same rank, same sizes wherever `wanted` has a number, some number where that is FIXED."""
    return len(shape) == len(wanted) and all(
        isinstance(s, int) and n in (s, FIXED)
        for s, n in zip(shape, wanted, strict=True)
        if isinstance(n, int)
    )


def needed(name: str, m: Manifest) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of an engine, but for its caches of keys and values."""
    if name in ("trunk", "speech_branch", "text_branch"):
        return _language(name, m)
    mel, waves = m.flow.mel_bins, m.vocoder.harmonics + 1
    index: Shape = (1,)
    frames: Shape = (1, mel, "F")
    mask: Shape = ("S", "C")
    if name == "encoder":
        tails: Shapes = {
            "conv1_tail": (1, m.encoder.mel_bins, FIXED),
            "conv2_tail": (1, FIXED, FIXED),
        }
        new: Shapes = {"log_mel": (1, m.encoder.mel_bins, "T"), "frame_index": index}
        return new | tails | {"mask": mask, "write_index": index}, {"codes": (1, "n")} | _out(tails)
    if name == "flow_encoder":
        ahead: Shape = (1, m.flow.lookahead_tokens)
        tails = {"lookahead_tail": (1, FIXED, FIXED), "up_tail": (1, FIXED, FIXED)}
        new = {"codes": (1, "n"), "lookahead": ahead, "lookahead_gain": ahead, "token_index": index}
        new |= {"embedding": (1, m.flow.speaker_dim), "token_mask": mask, "token_write": index}
        new |= {"frame_mask": mask, "frame_write": index}
        return new | tails, {"mu": frames, "speaker": (1, mel)} | _out(tails)
    if name == "flow_step":
        tails = {"tails": (2, FIXED, FIXED)}
        new = {"x": frames, "mu": frames, "cond": frames, "speaker": (1, mel), "t": index}
        new |= {"dt": index, "mask": mask, "write_index": (2,)}
        return new | tails, {"x_out": frames} | _out(tails)
    new = {"mel": (1, mel, "T"), "noise": (1, "S", waves), "source_tail": (1, "P")}
    phase: Shapes = {"phase": (1, waves)}
    return new | phase | {"phase_frame": index}, {"pcm": (1, "S"), "source": (1, "S")} | _out(phase)


def _language(name: str, m: Manifest) -> tuple[Shapes, Shapes]:
    rows: Shape = (1, "S", m.lm.hidden_size)
    angles: Shape = (1, "S", m.lm.head_dim // 2)
    place: Shapes = {"cos": angles, "sin": angles, "mask": ("S", "C"), "write_index": (1,)}
    if name == "trunk":
        return {"embeddings": rows} | place, {"hidden": rows}
    vocab = m.lm.audio_vocab if name == "speech_branch" else m.lm.text_vocab
    return {"hidden": rows} | place, {"logits": (1, vocab)}


def _caches(prefix: str, entry: EngineEntry, m: Manifest, name: str) -> Shapes:
    """As many layers as the manifest says; of engines it says nothing of, as many as there are."""
    lm, given = m.lm, {spec.name for spec in entry.inputs}
    there = max(1, sum(f"{prefix}key_{i}" in given for i in range(len(given))))
    language = {"trunk": lm.shared_layers}
    language |= dict.fromkeys(("speech_branch", "text_branch"), lm.modality_layers)
    shape: Shape = (FIXED, FIXED, "C", FIXED)
    if name in language:
        there, shape = language[name], (1, lm.kv_heads, "C", lm.head_dim)
    return {f"{prefix}{kind}_{i}": shape for i in range(there) for kind in ("key", "value")}


def _out(shapes: Shapes) -> Shapes:
    """State that comes out as it went in."""
    return {f"{name}_out": shape for name, shape in shapes.items()}
