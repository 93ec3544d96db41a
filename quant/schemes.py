"""How a weight matrix is stored: floats, or codes times scales.

code         8 bits                   4 bits           fp8 E4M3: sign, 4 exponent, 3 mantissa
values       -127 … 127               -7 … 7           ±{0, 2⁻⁹ … 448}, no infinities
searched     -127 … 127               -8 … 7           the same
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher


class QuantError(ValueError):
    """A scheme that does not exist, or a matrix it cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Storage of a matrix [O, I]: floats, or codes around zero with float32 scales."""

    name: str
    bits: int  # per weight: 32 and 16 are plain floats, 8 and 4 codes
    block_size: int = 0  # consecutive inputs that share a scale; 0: one scale per output
    floating: bool = False  # the codes are fp8 E4M3 instead of integers

    @property
    def quantized(self) -> bool:
        """Whether weights become codes."""
        return self.bits <= 8

    @property
    def limit(self) -> int:
        """Largest code; plain rounding uses its negative as the smallest."""
        if not self.quantized:
            raise QuantError(f"scheme {self.name} has no codes")
        return 448 if self.floating else int(2 ** (self.bits - 1) - 1)

    @property
    def lowest(self) -> int:
        """Smallest code worth using: at 4 bits the sixteenth code is 6 % of all, at 8 nothing."""
        return -self.limit - 1 if self.bits == 4 else -self.limit

    def blocks(self, inputs: int) -> int:
        """Scales per output of a matrix with that many inputs."""
        return -(-inputs // self.block_size) if self.block_size else 1

    def groups(self, inputs: int) -> tuple[int, int]:
        """Blocks per output and inputs per block. Raises QuantError naming a block that divides."""
        blocks = self.blocks(inputs)
        size = self.block_size or inputs
        if blocks * size != inputs:
            nearest = self.fit(inputs).block_size
            instead = f"blocks of {nearest}" if nearest else "one scale per output"
            raise QuantError(f"block {size} does not divide {inputs} inputs; {instead} would do")
        return blocks, size

    def fit(self, inputs: int) -> Scheme:
        """This scheme with the block halved until it divides `inputs`.

        Kernels want at least 16 inputs a block; failing that, one scale per output.
        """
        block = self.block_size
        while block > 16 and inputs % block:
            block //= 2
        if block and inputs % block:
            block = 0
        return replace(self, block_size=block)


FP32 = Scheme(name="fp32", bits=32)
FP16 = Scheme(name="fp16", bits=16)
# Blocks of 128 cost 1.6 % more bytes than one scale per output, and ONNX Runtime runs them
# 1.05 to 1.25 times faster for one row and up to 1.6 times for 64: it cuts rows into 32s.
INT8 = Scheme(name="int8", bits=8, block_size=128)
INT8_ROW = Scheme(name="int8_row", bits=8)  # one scale per output: what TensorRT takes
INT4_B32 = Scheme(name="int4_b32", bits=4, block_size=32)
INT4_B64 = Scheme(name="int4_b64", bits=4, block_size=64)
INT4_B128 = Scheme(name="int4_b128", bits=4, block_size=128)
FP8 = Scheme(name="fp8", bits=8, floating=True)  # needs hardware: Ada, Hopper, Blackwell

SCHEMES = {s.name: s for s in (FP32, FP16, INT8, INT8_ROW, INT4_B32, INT4_B64, INT4_B128, FP8)}


def scheme(name: str) -> Scheme:
    """Look a scheme up by name. Raises QuantError naming the nearest and the known ones."""
    if name not in SCHEMES:
        raise QuantError(
            f"unknown scheme {name!r}; the nearest is {nearest(name, SCHEMES)}; known: "
            f"{', '.join(SCHEMES)}"
        )
    return SCHEMES[name]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that has most of the letters of `word` in their order; there must be one."""

    def alike(other: str) -> tuple[int, int]:
        pieces = SequenceMatcher(None, word, other, autojunk=False).get_matching_blocks()
        return sum(piece.size for piece in pieces), -len(other)

    return max(known, key=alike)
