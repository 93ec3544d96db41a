"""The bundles whose quality is compared: shipped recipes, and twins of as many bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from antiphon.export.pipeline import export
from antiphon.quant.recipe import load_recipe

RECIPES = {  # shipped ones, and the target they are for
    "fp32": "cpu",
    "int8": "cpu",
    "int4": "cpu",
    "int4-quality": "cpu",
    "fp8": "cuda",
}
NOISE_FRAMES = 1500  # nano's


@dataclass(frozen=True, slots=True)
class Twin:
    """A recipe with the schemes of another one, but other ways of choosing the codes."""

    of: str
    norm_fed: str  # method of queries, keys, gates and ups, whose inputs come from a norm
    others: str  # of the remaining int4 matrices


TWINS = {
    "int4-plain": Twin("int4", "rtn", "rtn"),
    "int4-gptq": Twin("int4", "gptq", "gptq"),
    "int4-awq-gptq": Twin("int4", "awq+gptq", "gptq"),
    "int4-quality-plain": Twin("int4-quality", "rtn", "rtn"),
    "int4-quality-searched": Twin("int4-quality", "mse", "mse"),
}
PLAIN = {  # the twin that merely rounds, of as many bits
    "int4": "int4-plain",
    "int4-gptq": "int4-plain",
    "int4-awq-gptq": "int4-plain",
    "int4-quality": "int4-quality-plain",
    "int4-quality-searched": "int4-quality-plain",
}
_NORM_FED = "*_block.layers.*.[qkgu]*_proj.weight"


def export_all(checkpoint: Path, statistics: Path, out: Path) -> None:
    """Write every bundle that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (*RECIPES, *TWINS):
        if not (out / name).exists():
            weights = name if name in RECIPES else _written(out, name)
            export(
                checkpoint,
                out / name,
                weights=weights,
                statistics=statistics,
                target=RECIPES.get(name, "cpu"),
                noise_frames=NOISE_FRAMES,
                jobs=1,
                parity=False,
            )


def _written(out: Path, name: str) -> Path:
    """The recipe of a twin, as a file."""
    twin = TWINS[name]
    rules = [(r.match, r.scheme, r.method) for r in load_recipe(twin.of).rules]
    four = [i for i, (_, scheme, _) in enumerate(rules) if scheme.bits == 4]
    scheme = rules[four[0]][1]
    rules[four[0] : four[-1] + 1] = [
        (_NORM_FED, scheme, twin.norm_fed),
        ("*_block.layers.*", scheme, twin.others),
    ]
    text = "\n".join(
        f'[[rules]]\nmatch = "{match}"\nscheme = "{scheme.name}"\nmethod = "{method}"\n'
        for match, scheme, method in rules
    )
    path = out / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path
