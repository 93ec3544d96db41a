"""Resampling: equal to the written definition in float64, the same for any chunking."""

from __future__ import annotations

from math import ceil, gcd, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.resample import Resampler, resample

RATES = [(48_000, 16_000), (44_100, 16_000), (24_000, 16_000), (16_000, 24_000), (8_000, 16_000)]


def by_definition(pcm: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """y(n) = sum over k of x(k) h(n/out - k/in), h a windowed sinc; plain, in float64."""
    divisor = gcd(rate_in, rate_out)
    period_in, period_out = rate_in // divisor, rate_out // divisor
    cutoff = 0.99 * min(period_in, period_out)
    out = np.zeros(ceil(len(pcm) * rate_out / rate_in))
    k = np.arange(len(pcm))
    for n in range(len(out)):
        t = np.clip((k / period_in - n / period_out) * cutoff, -6, 6)
        window = np.cos(t * pi / 12) ** 2
        sinc = np.where(t == 0, 1.0, np.sin(pi * t) / np.where(t == 0, 1.0, pi * t))
        out[n] = np.sum(pcm * sinc * window) * cutoff / period_in
    return out


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
@pytest.mark.parametrize("samples", [1, 160, 1003])
def test_equals_the_definition(rate_in: int, rate_out: int, samples: int) -> None:
    pcm = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    got = resample(pcm, rate_in, rate_out)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_definition(pcm, rate_in, rate_out), atol=3e-6)


@settings(max_examples=40)
@given(
    rates=st.sampled_from([*RATES, (16_000, 16_000), (22_050, 24_000)]),
    samples=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=10),
)
def test_streaming_equals_offline(rates: tuple[int, int], samples: int, cuts: list[int]) -> None:
    pcm = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    resampler = Resampler(*rates)
    pieces = np.split(pcm, sorted(c % (samples + 1) for c in cuts))
    streamed = np.concatenate([*map(resampler.push, pieces), resampler.finish()])
    assert len(streamed) == ceil(samples * rates[1] / rates[0])
    np.testing.assert_allclose(streamed, resample(pcm, *rates), atol=1e-6)
    again = np.concatenate([resampler.push(pcm), resampler.finish()])  # finish() starts anew
    np.testing.assert_allclose(again, streamed, atol=1e-6)


def test_a_tone_keeps_its_pitch_and_level() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100).astype(np.float32)
    got = resample(tone, 44_100, 16_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(got[200:-200], expected[200:-200], atol=5e-3)


def test_same_rate_returns_a_copy() -> None:
    pcm = np.ones(10, np.float32)
    out = resample(pcm, 16_000, 16_000)
    out[:] = 0
    assert pcm.sum() == 10


@pytest.mark.parametrize("rates", [(0, 16_000), (16_000, -1), (44_101, 16_000)])
def test_impossible_rates_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="cannot resample"):
        Resampler(*rates)
