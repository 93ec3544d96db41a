"""How the weights of a checkpoint, and the caches of the language model, will be stored.

Decided and checked before any work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from antiphon.quant.recipe import CALIBRATED, Recipe, Rule, load_recipe, unquantized
from antiphon.quant.schemes import INT8, INT8_ROW, SCHEMES, QuantError, Scheme
from antiphon.runtime.errors import ConfigError

from .checkpoint import Checkpoint, FileKey
from .statistics import is_calibrated
from .tensor_sizes import WEIGHT_NORM

Kind = Literal["matrix", "floats", "table"]

PARTS: dict[str, tuple[FileKey, tuple[str, ...]]] = {  # where an engine's weights come from
    "encoder": ("tokenizer", ("",)),
    "trunk": ("lm", ("model.shared_block.",)),
    "speech_branch": ("lm", ("model.audio_block.", "model.audio_norm.", "audio_lm_head.")),
    "text_branch": ("lm", ("model.text_block.", "model.text_norm.", "text_lm_head.")),
    "flow_encoder": ("flow", ("input_embedding.", "spk_embed_affine_layer.", "encoder")),
    "flow_step": ("flow", ("decoder.",)),
    "vocoder": ("hift", ("",)),
    "tables": ("lm", ("model.embed_tokens.", "model.audio_embed.")),
}
_EVERYWHERE = {"fp32", "fp16", "int8", "int8_row", "int4_b32", "int4_b64", "int4_b128"}
TARGETS = {  # what engines for it may hold; the CPU has no kernel for fp8
    "cpu": _EVERYWHERE,
    "cuda": _EVERYWHERE | {"fp8"},
}
INT8_CACHES = "int8"
CACHES = ("float32", INT8_CACHES)  # what keys and values of the language model may be
# matrices at the border of an engine, and tables that are looked up in one
_FLOATS = {
    "encoder/encoder.embed_positions.weight",
    "flow_encoder/input_embedding.weight",
    "flow_encoder/encoder.embed.out.0.weight",
    "flow_encoder/spk_embed_affine_layer.weight",
    "flow_encoder/encoder_proj.weight",
    "flow_step/decoder.estimator.final_proj.weight",
}
_EXACT = {"encoder/encoder.codebook.weight"}  # codes depend on every bit of it
_JOINED = (  # matrices that an engine keeps as one
    (re.compile(r"\.(linear|to)_[qkv]\.weight$"), r".\1_qkv.weight"),
    (re.compile(r"^flow_step/.*\.0\.mlp\.1\.weight$"), "flow_step/resnet_times"),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One weight that a recipe speaks of."""

    kind: Kind
    shape: tuple[int, ...]
    rule: Rule
    scheme: Scheme  # as it will be written: the rule's, but float16 where no kernel takes codes

    @property
    def count(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """On disk, scales included."""
        scales = 0
        if self.scheme.quantized:
            inputs = self.count // self.shape[0]
            scales = self.shape[0] * self.scheme.fit(inputs).blocks(inputs)
        return self.count * self.scheme.bits // 8 + 4 * scales


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe, and what it makes of one checkpoint."""

    recipe: Recipe
    weights: Mapping[str, Stored]  # by "ENGINE/TENSOR"
    kv: str = CACHES[0]  # how the language model keeps keys and values

    @classmethod
    def make(
        cls, source: Checkpoint, weights: str | Path, target: str, kv: str = CACHES[0]
    ) -> Plan:
        """Apply a recipe, named as `load_recipe` takes it. Raises ConfigError, saying what fits."""
        for what, word, known in (("target", target, TARGETS), ("kv", kv, CACHES)):
            if word not in known:
                raise ConfigError(f"{what} {word!r}: choose one of {', '.join(known)}")
        try:
            recipe = load_recipe(weights)
            subjects = {name: (kind, shape) for name, kind, shape in _subjects(source)}
            recipe.check(subjects)
        except QuantError as error:
            raise ConfigError(f"weights: {error}") from error
        stored = {}
        for name, (kind, shape) in subjects.items():
            rule = recipe.rule_of(name)
            if rule.scheme.name not in TARGETS[target]:
                able = [other for other, runs in TARGETS.items() if rule.scheme.name in runs]
                raise ConfigError(
                    f"recipe {recipe.name}: {name} as {rule.scheme.name}, which target {target} "
                    f"cannot run; {INT8.name} is the nearest that it runs, or choose target "
                    f"{' or '.join(able)}"
                )
            kept = _scheme(recipe, name, kind, shape, rule.scheme)
            _check_method(recipe, name, rule, kept)
            stored[name] = Stored(kind, shape, rule, kept)
        _check_joined(recipe, stored)
        return cls(recipe, stored, kv)

    def of(self, engine: str) -> dict[str, Stored]:
        """The weights of one engine, by the tensor's name in the checkpoint."""
        found = ((name.partition("/"), weight) for name, weight in self.weights.items())
        return {tensor: weight for (part, _, tensor), weight in found if part == engine}

    def stated(self, engine: str) -> str:
        """The schemes of an engine, such as int4_b128+int8: the one of most weights first."""
        kept = list(self.of(engine).values())
        counts: dict[str, int] = {}
        for weight in [w for w in kept if w.kind == "matrix"] or kept:
            counts[weight.scheme.name] = counts.get(weight.scheme.name, 0) + weight.count
        return "+".join(sorted(counts, key=lambda name: -counts[name]))


def part_shapes(source: Checkpoint, part: str) -> dict[str, tuple[int, ...]]:
    """Tensors of one engine, or of the tables, and their shapes."""
    key, prefixes = PARTS[part]
    return {n: shape for n, shape in source.shapes(key).items() if n.startswith(prefixes)}


def _subjects(source: Checkpoint) -> Iterator[tuple[str, Kind, tuple[int, ...]]]:
    """What recipes speak of: "ENGINE/TENSOR", its kind and shape. Vectors stay as they are."""
    for part in PARTS:
        for tensor, shape in part_shapes(source, part).items():
            if part == "vocoder":
                tensor = tensor.replace(f".{WEIGHT_NORM[1]}", ".weight")
            name, kind = f"{part}/{tensor}", _kind(part, tensor, len(shape))
            if kind is not None and name not in _EXACT:
                yield name, kind, shape


def _kind(part: str, tensor: str, rank: int) -> Kind | None:
    if rank < 2 or not tensor.endswith(".weight"):
        return None
    if part == "tables":
        return "table"
    if part == "vocoder":
        return "floats" if rank == 3 else None
    name = f"{part}/{tensor}"
    return "floats" if name in _FLOATS or tensor.endswith(".linear_pos.weight") else "matrix"


def _scheme(
    recipe: Recipe, name: str, kind: Kind, shape: tuple[int, ...], scheme: Scheme
) -> Scheme:
    """What is written for a weight that shall be `scheme`. ConfigError if it does not fit."""
    if kind == "floats":
        return unquantized(scheme)
    legal: Scheme | None = None
    if kind == "table" and scheme.quantized:
        legal = INT8_ROW if scheme in (INT8, INT8_ROW) else None
        nearest = INT8_ROW.name
    else:
        inputs = math.prod(shape[1:])
        legal = scheme if _fits(scheme, shape[0], inputs) else None
        nearest = _nearest(scheme, shape[0], inputs)
    if legal is None:
        raise ConfigError(
            f"recipe {recipe.name}: {name} {list(shape)} cannot be {scheme.name}"
            f"{_reason(kind, scheme, shape)}; the nearest that fits is {nearest}"
        )
    return legal


def _fits(scheme: Scheme, outputs: int, inputs: int) -> bool:
    """A block that a scheme's name states is kept; int8 halves its own where it must."""
    stated = scheme.block_size and scheme.name.endswith(f"_b{scheme.block_size}")
    if scheme.bits == 4 and outputs % 2:  # two outputs share a byte
        return False
    return not (stated and inputs % scheme.block_size)


def _reason(kind: Kind, scheme: Scheme, shape: tuple[int, ...]) -> str:
    if kind == "table":
        return ": tables have one scale to a row"
    inputs = math.prod(shape[1:])
    if scheme.block_size and inputs % scheme.block_size:
        return f": blocks of {scheme.block_size} do not divide {inputs} inputs"
    return f": {shape[0]} outputs are odd"


def _nearest(scheme: Scheme, outputs: int, inputs: int) -> str:
    same = [s for s in SCHEMES.values() if s.bits == scheme.bits and _fits(s, outputs, inputs)]
    return max(same, key=lambda s: s.block_size, default=INT8).name


def _check_method(recipe: Recipe, name: str, rule: Rule, kept: Scheme) -> None:
    """A method that needs statistics is for matrices that have some, stored as codes."""
    if rule.method in CALIBRATED and not (is_calibrated(name) and kept.quantized):
        raise ConfigError(
            f"recipe {recipe.name}: {name} as {kept.name} by {rule.method}, which is for matrices "
            f"of the language model stored as codes; {rule.match!r} matches more: put a rule "
            "before it"
        )


def _check_joined(recipe: Recipe, stored: Mapping[str, Stored]) -> None:
    first: dict[str, tuple[str, Stored]] = {}
    for name, weight in stored.items():
        whole = name
        for pattern, joined in _JOINED:
            whole = pattern.sub(joined, whole)
        other, kept = first.setdefault(whole, (name, weight))
        if (kept.scheme, kept.rule.method) != (weight.scheme, weight.rule.method):
            raise ConfigError(
                f"recipe {recipe.name}: {other} as {kept.scheme.name} ({kept.rule.method}), {name} "
                f"as {weight.scheme.name} ({weight.rule.method}): one matrix in the engine; give "
                "both the same"
            )
