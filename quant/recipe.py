"""Which scheme each weight of a model is stored by: rules, of which the first that matches wins.

A recipe is a TOML file of rules:

    [[rules]]
    match = "trunk/*.mlp.down_proj.weight"   # "ENGINE/TENSOR", with *, ? and [abc]; * crosses dots
    scheme = "int4_b64"

    [[rules]]
    match = "*"
    scheme = "int8"

Engines are those of a bundle; tensors have the checkpoint's names. The embedding tables, which the
host reads, are `tables/model.embed_tokens.weight` and `tables/model.audio_embed.weight`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from . import blocks, rounding
from .schemes import FP16, SCHEMES, QuantError, Scheme, nearest, scheme

METHODS = {"rtn": blocks.quantize, "mse": rounding.search}  # how scales and codes are chosen
AWQ, SCALED = "awq", ("awq", "awq+gptq")  # inputs are scaled before rounding
CALIBRATED = ("gptq", *SCALED)  # these need to have seen the inputs of a matrix
SUFFIX = ".toml"
_SHIPPED = Path(__file__).parent / "recipes"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Rule:
    """How the weights whose "ENGINE/TENSOR" name matches are stored.

    method   rtn: rounded to nearest, each block scaled by its largest magnitude;
             mse: with the scales of least squared error, which takes several times as long
             gptq, awq, awq+gptq: fitted to the inputs that a calibration saw
    """

    match: str
    scheme: Scheme
    method: str = "rtn"

    def __post_init__(self) -> None:
        known = (*METHODS, *CALIBRATED)
        if self.method not in known:
            raise QuantError(
                f"rule {self.match!r}: unknown method {self.method!r}; known: {', '.join(known)}"
            )

    def matches(self, name: str) -> bool:
        """Whether `name`, such as "trunk/model.shared_block.layers.0.mlp.up_proj.weight", is meant.

        Case counts, and `*` also stands for dots and slashes.
        """
        return fnmatchcase(name, self.match)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Rules in the order they are tried."""

    name: str
    rules: tuple[Rule, ...]

    def rule_of(self, name: str) -> Rule:
        """The rule for "ENGINE/TENSOR". Raises QuantError when there is none."""
        for rule in self.rules:
            if rule.matches(name):
                return rule
        raise QuantError(f'recipe {self.name}: no rule for {name}; end with one that matches "*"')

    def scheme_of(self, name: str) -> Scheme:
        """The scheme for "ENGINE/TENSOR". Raises QuantError when no rule matches."""
        return self.rule_of(name).scheme

    def check(self, names: Iterable[str]) -> None:
        """Refuse rules that cannot mean what they say for a model with these weights.

        Raises QuantError for a weight without a rule, for a rule that matches nothing, and for one
        that never applies because earlier rules match first wherever it does.
        """
        left = everything = list(names)
        taken: dict[str, Rule] = {}
        for rule in self.rules:
            matching = [name for name in left if rule.matches(name)]
            early = {r.match for name, r in taken.items() if rule.matches(name)}
            if not matching and not early:
                raise QuantError(
                    f"recipe {self.name}: {rule.match!r} matches no weight of this model; the "
                    f"nearest is {nearest(rule.match, everything or ['nothing'])}"
                )
            if not matching:
                raise QuantError(
                    f"recipe {self.name}: {rule.match!r} never applies, because "
                    f"{' and '.join(map(repr, sorted(early)))} before it match the same weights; "
                    "put it first, or remove it"
                )
            taken |= dict.fromkeys(matching, rule)
            left = [name for name in left if name not in taken]
        if left:
            self.rule_of(left[0])


RuleOf = Callable[[str], Rule]  # of one engine, by the tensor's name in the checkpoint


def rules_of(engine: str, kept: Scheme | Recipe) -> RuleOf:
    """The rules for the tensors of one engine; a scheme stands for its `plain` recipe."""
    recipe = kept if isinstance(kept, Recipe) else plain(kept)
    return lambda tensor: recipe.rule_of(f"{engine}/{tensor}")


def unquantized(scheme: Scheme) -> Scheme:
    """What stands for a scheme where no kernel takes codes: an integer scheme becomes float16."""
    return FP16 if scheme.quantized else scheme


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob(f"*{SUFFIX}"))


def load_recipe(source: str | Path) -> Recipe:
    """A recipe by its file NAME.toml, by the name of a shipped one, or by the name of a scheme.

    A scheme's name stands for the shipped recipe of as many bits, that scheme put in the place of
    its own. Raises QuantError naming the file and what is wrong with it.
    """
    text = str(source)
    if isinstance(source, Path) or text.endswith(SUFFIX):
        return _read(Path(source))
    if text in shipped():
        return _read(_SHIPPED / f"{text}{SUFFIX}")
    if text in SCHEMES:
        return plain(SCHEMES[text])
    raise QuantError(
        f"unknown {text!r}; the nearest is {nearest(text, (*shipped(), *SCHEMES))}; choose a "
        f"recipe ({', '.join(shipped())}), a scheme ({', '.join(SCHEMES)}) or a file NAME{SUFFIX}"
    )


def plain(scheme: Scheme) -> Recipe:
    """The shipped recipe with as many bits, its own scheme replaced by this one.

    Four bits so hold for the layers of the language model; the heads, which decide ties and the end
    of speech, and the codec keep eight (contract J.35).
    """
    kind = "int" if scheme.quantized else "fp"
    base = _read(_SHIPPED / f"{kind}{scheme.bits}{SUFFIX}")
    rules = [
        replace(rule, scheme=scheme) if rule.scheme.bits == scheme.bits else rule
        for rule in base.rules
    ]
    return Recipe(scheme.name, tuple(rules))


def _read(path: Path) -> Recipe:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        raw = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise QuantError(f"recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise QuantError(f"recipe {path}: not TOML ({error})") from error
    rules = raw.pop("rules", None)
    if raw or not isinstance(rules, list) or not rules:
        extra = f", got {', '.join(sorted(raw))}" if raw else ""
        raise QuantError(f"recipe {path}: expected [[rules]] and nothing else{extra}")
    return Recipe(
        path.stem, tuple(_rule(f"recipe {path}: rule {i}", r) for i, r in enumerate(rules, 1))
    )


def _rule(where: str, raw: Any) -> Rule:
    known = {"match", "scheme", "method"}
    if (
        not isinstance(raw, dict)
        or not {"match", "scheme"} <= raw.keys() <= known
        or not all(isinstance(value, str) for value in raw.values())
    ):
        raise QuantError(f"{where} is {raw!r:.120}, expected texts for match and scheme")
    try:
        return Rule(raw["match"], scheme(raw["scheme"]), raw.get("method", "rtn"))
    except QuantError as error:
        raise QuantError(f"{where}: {error}") from error
