"""The mel of a voice prompt equals the reference's, frame for frame."""

import numpy as np
import pytest
import torch

from antiphon.export.reference.mel import flow_mel as reference
from antiphon.runtime.flow_mel import flow_mel


@pytest.mark.parametrize("samples", [721, 1919, 1920, 2399, 2400, 24_000])
def test_equals_the_reference(samples):
    rng = np.random.default_rng(samples)
    pcm = (0.2 * rng.standard_normal(samples) * np.linspace(0, 1, samples)).astype(np.float32)
    pcm[samples // 2 : samples // 2 + 200] = 0
    mel = flow_mel(pcm, 80)
    assert (mel.shape, mel.dtype) == ((80, samples // 480), np.float32)
    np.testing.assert_allclose(mel, reference(torch.from_numpy(pcm)[None])[0].numpy(), atol=2e-5)


def test_silence_lies_on_the_floor():
    mel = flow_mel(np.zeros(4800, np.float32), 80)
    assert mel.shape == (80, 10)
    assert mel.min() == pytest.approx(np.log(1e-5), abs=1e-6)
    np.testing.assert_allclose(mel, reference(torch.zeros(1, 4800))[0].numpy(), atol=1e-5)
