"""Author the vocoder: mel frames and noise -> samples and the source that made them (contract F.3).

    mel --F0 predictor--> f0 --harmonics--> source [1, 480T] --STFT--> [1, 18, 120T + 1]
    mel --conv_pre, three times (up, + source, resblocks), conv_post--> spectrum --iSTFT--> pcm

Fourier transforms of 16 samples are convolutions with constant filters. The phase is kept in turns
and wrapped once per frame, so that it stays exact however long the input is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.quant.recipe import Recipe, rules_of
from antiphon.quant.schemes import FP32, Scheme

from .graph import END, GraphBuilder
from .reference.config import HiftConfig

Floats = NDArray[np.float32]
_FLOAT = 1  # TensorProto.FLOAT


def hann(size: int) -> NDArray[np.float64]:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def analysis_filters(n_fft: int) -> Floats:
    """Windowed DFT as convolution weights [n_fft + 2, 1, n_fft]: real parts, then imaginary."""
    angle = 2 * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft
    filters = np.concatenate((np.cos(angle), -np.sin(angle))) * hann(n_fft)
    return filters[:, None].astype(np.float32)


def synthesis_filters(n_fft: int, envelope: float) -> Floats:
    """Windowed inverse DFT as transposed-convolution weights, divided by `envelope`."""
    angle = 2 * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft
    twice = np.full((n_fft // 2 + 1, 1), 2.0)
    twice[[0, -1]] = 1.0  # the other bins stand for their mirror images too
    filters = np.concatenate((twice * np.cos(angle), -twice * np.sin(angle)))
    return (filters * hann(n_fft) / n_fft / envelope)[:, None].astype(np.float32)


def envelope(n_fft: int, hop: int, frames: int) -> NDArray[np.float64]:
    """Sum of the squared windows over the samples that are kept (contract L)."""
    total = np.zeros((frames - 1) * hop + n_fft)
    for i in range(frames):
        total[i * hop : i * hop + n_fft] += hann(n_fft) ** 2
    return total[n_fft // 2 : -(n_fft // 2)]


def build_vocoder(
    config: HiftConfig,
    read: Callable[[str], Floats],
    path: Path,
    kept: Scheme | Recipe = FP32,
) -> Path:
    """Write the engine to `path`; `read` returns a tensor of hift.pt with weight norm fused.

    Convolutions have no integer kernels: whatever `kept` says below 32 bits is float16.
    """
    return _Vocoder(config, read, kept, path).build()


class _Vocoder:
    def __init__(
        self,
        config: HiftConfig,
        read: Callable[[str], Floats],
        kept: Scheme | Recipe,
        path: Path,
    ) -> None:
        self.config, self.read, self.rule_of = config, read, rules_of("vocoder", kept)
        self.graph = GraphBuilder(path)

    def build(self) -> Path:
        b, c = self.graph, self.config
        mel = b.input("mel", np.float32, [1, c.mel_bins, "T"])
        made = self._source(self._f0(mel))
        tail = b.input("source_tail", np.float32, [1, "P"])
        rest = b.slice(made, 1, b.size(tail, 1), END)
        source = b.op("Concat", tail, rest, name="source", axis=1)
        pcm = self._decode(mel, self._stft(source))
        samples = f"{c.samples_per_frame}*T"
        b.output(pcm, np.float32, [1, samples])
        b.output(source, np.float32, [1, samples])
        b.output("phase_out", np.float32, [1, c.harmonics + 1])
        return b.save()

    def _conv(self, x: str, name: str, op: str = "Conv", **attributes: Any) -> str:
        """x [1, C, T] with weight [O, C, K], of ConvTranspose [C, O, K]."""
        b, weight = self.graph, f"{name}.weight"
        half = self.rule_of(weight).scheme.bits < 32
        kernel = b.weight(weight, self.read(weight), half=half)
        bias = b.const(f"{name}.bias", self.read(f"{name}.bias"))
        return b.op(op, x, kernel, bias, name=f"{name}/{op}", **attributes)

    # source

    def _f0(self, mel: str) -> str:
        """Fundamental frequency [1, T, 1] in Hz."""
        b, x = self.graph, mel
        for i in range(0, 10, 2):
            x = b.op("Elu", self._conv(x, f"f0_predictor.condnet.{i}", pads=[1, 1]))
        name = "f0_predictor.classifier"
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        return b.op("Abs", b.linear(b.transpose(x, 0, 2, 1), name, weight, bias))

    def _source(self, f0: str) -> str:
        """f0 [1, T, 1] and noise [1, 480T, 9] -> harmonic source [1, 480T]."""
        b, c = self.graph, self.config
        waves = b.op("Sin", b.op("Mul", self._turns(f0), b.scalar(2 * math.pi)))  # [1, T, 480, 9]
        hz = b.scalar(c.voiced_threshold_hz)
        voiced = b.op("Unsqueeze", b.op("Cast", b.op("Greater", f0, hz), to=_FLOAT), b.ints(2))
        waves = b.op("Mul", waves, b.op("Mul", voiced, b.scalar(c.sine_amplitude)))
        unvoiced = c.sine_amplitude / 3
        slope = b.op("Mul", voiced, b.scalar(c.noise_std - unvoiced))
        sigma = b.op("Add", slope, b.scalar(unvoiced))
        size, order = c.samples_per_frame, c.harmonics + 1
        noise = b.input("noise", np.float32, [1, f"{size}*T", order])
        waves = b.op("Add", waves, b.op("Mul", b.reshape(noise, 1, -1, size, order), sigma))
        name = "m_source.l_linear"
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        return b.reshape(b.op("Tanh", b.linear(waves, name, weight, bias)), 1, -1)

    def _turns(self, f0: str) -> str:
        """Phase of every harmonic and sample [1, T, 480, 9] in turns (F.3 step 2, closed form).

        The phase advances linearly from the centre of a frame to that of the next and stands still
        before the first centre and after the last. Inputs `phase` [1, 9] and `phase_frame` [1]: at
        the centre of frame `phase_frame` - 1 it has the value `phase`; 0 and 0 say that it starts
        from nothing. Output `phase_out`: its value at the last centre.
        """
        b, c = self.graph, self.config
        orders = np.arange(1, c.harmonics + 2, dtype=np.float32)
        hz = b.op("Mul", f0, b.const("orders", orders))
        per_sample = self._wrap(b.op("Div", hz, b.scalar(c.sample_rate_hz)))
        advance = b.op("Mul", per_sample, b.scalar(c.samples_per_frame))  # [1, T, 9]
        phase = b.op("CumSum", self._wrap(advance), b.const("time_axis", np.int64(1)))
        zeros = b.const("no_advance", np.zeros((1, 1, len(orders))))
        frame = b.input("phase_frame", np.int64, [1])
        given = b.op("Unsqueeze", b.input("phase", np.float32, [1, len(orders)]), b.ints(1))
        there = b.op("Gather", b.concat(1, zeros, phase), frame, axis=1)
        phase = self._wrap(b.op("Add", phase, b.op("Sub", given, there)))
        b.op("Squeeze", b.tail(phase, 1, 1), b.ints(1), name="phase_out")
        later = b.slice(advance, 1, 1, END)
        place = (np.arange(c.samples_per_frame) + 0.5) / c.samples_per_frame - 0.5
        turns = b.op("Unsqueeze", phase, b.ints(2))
        for name, step, share in (
            ("before", b.concat(1, zeros, later), np.minimum(place, 0)),
            ("after", b.concat(1, later, zeros), np.maximum(place, 0)),
        ):
            share_name = b.const(f"{name}_centre", share[:, None])
            turns = b.op("Add", turns, b.op("Mul", b.op("Unsqueeze", step, b.ints(2)), share_name))
        return turns

    def _wrap(self, x: str) -> str:
        """x mod 1."""
        return self.graph.op("Sub", x, self.graph.op("Floor", x))

    # decoder

    def _stft(self, source: str) -> str:
        """Source [1, S] -> spectrum [1, 18, S/4 + 1]."""
        b, c = self.graph, self.config
        half = c.n_fft // 2
        x = b.op("Unsqueeze", source, b.ints(1))
        x = b.op("Pad", x, b.ints(0, 0, half, 0, 0, half), mode="reflect")
        kernel = b.weight("stft.weight", analysis_filters(c.n_fft))
        return b.op("Conv", x, kernel, name="stft/Conv", strides=[c.hop])

    def _decode(self, mel: str, spectrum: str) -> str:
        b, c = self.graph, self.config
        x = self._conv(mel, "conv_pre", pads=[3, 3])
        for i in range(len(c.upsample_rates)):
            x = self._upsampled(x, i)
            r = math.prod(c.upsample_rates[i + 1 :])
            down = self._conv(spectrum, f"source_downs.{i}", strides=[r], pads=[r // 2, r // 2])
            kernel = c.source_kernels[i]
            x = b.op("Add", x, self._resblock(down, f"source_resblocks.{i}", kernel))
            first = len(c.resblock_kernels) * i
            kernels = enumerate(c.resblock_kernels, first)
            x = b.op("Mean", *(self._resblock(x, f"resblocks.{j}", k) for j, k in kernels))
        x = b.op("LeakyRelu", x, alpha=0.01)
        return self._synthesis(self._conv(x, "conv_post", pads=[3, 3]))

    def _upsampled(self, x: str, i: int) -> str:
        """Transposed convolution of stage i; the last one is padded by one reflected sample."""
        b, c, name = self.graph, self.config, f"ups.{i}"
        rate, kernel = c.upsample_rates[i], c.upsample_kernels[i]
        x = b.op("LeakyRelu", x, alpha=0.1)
        pads = [(kernel - rate) // 2] * 2
        x = self._conv(x, name, "ConvTranspose", strides=[rate], pads=pads)
        if i < len(c.upsample_rates) - 1:
            return x
        return b.op("Pad", x, b.ints(0, 0, 1, 0, 0, 0), mode="reflect")

    def _resblock(self, x: str, name: str, kernel: int) -> str:
        b = self.graph
        for i, dilation in enumerate(self.config.dilations):
            h = self._snake(x, f"{name}.activations1.{i}")
            pads = [dilation * (kernel - 1) // 2] * 2
            h = self._conv(h, f"{name}.convs1.{i}", pads=pads, dilations=[dilation])
            h = self._snake(h, f"{name}.activations2.{i}")
            h = self._conv(h, f"{name}.convs2.{i}", pads=[(kernel - 1) // 2] * 2)
            x = b.op("Add", x, h)
        return x

    def _snake(self, x: str, name: str) -> str:
        """x + sin²(αx) / (α + 1e-9)."""
        b = self.graph
        alpha = self.read(f"{name}.alpha")[:, None]
        sine = b.op("Sin", b.op("Mul", x, b.const(f"{name}.alpha", alpha)))
        square = b.op("Mul", sine, sine)
        inverse = b.const(f"{name}.inverse", 1.0 / (alpha + np.float32(1e-9)))
        return b.op("Add", x, b.op("Mul", square, inverse))

    def _synthesis(self, x: str) -> str:
        """Logarithms and phases [1, 18, 120T + 1] -> samples [1, 480T]."""
        b, c = self.graph, self.config
        log, angle = b.ops("Split", x, outputs=2, axis=1, num_outputs=2)
        magnitude = b.op("Exp", b.op("Min", log, b.scalar(math.log(100.0))))
        angle = b.op("Sin", angle)
        parts = [b.op("Mul", magnitude, b.op(part, angle)) for part in ("Cos", "Sin")]
        total = envelope(c.n_fft, c.hop, 4 * c.n_fft // c.hop)
        middle = float(total[len(total) // 2])
        filters = synthesis_filters(c.n_fft, middle)
        half = c.n_fft // 2
        kernel = b.weight("istft.weight", filters)
        pads, waves = [half, half], b.concat(1, *parts)
        x = b.op(
            "ConvTranspose", waves, kernel, name="istft/ConvTranspose", strides=[c.hop], pads=pads
        )
        x = b.op("Squeeze", x, b.ints(1))
        head, tail = c.hop, c.hop - 1  # samples where fewer windows overlap
        first = b.const("head_gain", middle / total[:head])
        last = b.const("tail_gain", middle / total[-tail:])
        x = b.concat(
            1,
            b.op("Mul", b.slice(x, 1, 0, head), first),
            b.slice(x, 1, head, -tail),
            b.op("Mul", b.tail(x, 1, tail), last),
        )
        limit = b.scalar(c.audio_limit)
        return b.op("Clip", x, b.scalar(-c.audio_limit), limit, name="pcm")
