"""The streaming vocoder: upstream's protocol when asked, gapless otherwise."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_voice
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.vocoder import Vocoder, fade_in, fade_out

FRAME, OVERLAP = 480, 3840
MEL = np.random.default_rng(3).standard_normal((80, 60), dtype=np.float32)
SMOOTH = np.cumsum(MEL, axis=1) / np.sqrt(1 + np.arange(60, dtype=np.float32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_voice.bundle(tmp_path_factory.mktemp("vocoder"))


def no_noise(vocoder):
    """Replace the generator, so that blocks can be compared."""
    vocoder._rng = SimpleNamespace(standard_normal=lambda out, dtype: out.fill(0))
    return vocoder


@pytest.fixture(scope="module")
def vocoder(bundle):
    return Vocoder(bundle)


def split(mel, cuts):
    return np.split(mel, sorted(cuts), axis=1)


def vocode(vocoder, pieces):
    return np.concatenate([*map(vocoder.push, pieces), vocoder.finish()])


@settings(max_examples=15)
@given(frames=st.integers(0, 30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_480_samples_per_frame_for_any_chunking(vocoder, frames, cuts):
    pieces = split(MEL[:, :frames], [c % (frames + 1) for c in cuts])
    pcm = vocode(vocoder, pieces)
    assert pcm.shape == (FRAME * frames,)
    assert pcm.dtype == np.float32
    assert np.abs(pcm).max(initial=0) <= np.float32(0.99)


def test_what_comes_when(vocoder):
    vocoder.reset()
    assert len(vocoder.push(MEL[:, :8])) == 0  # 8 frames are withheld anyway
    assert len(vocoder.push(MEL[:, 8:20])) == 12 * FRAME
    assert len(vocoder.push(MEL[:, 20:20])) == 0
    assert len(vocoder.push(MEL[:, 20:40])) == 20 * FRAME
    assert len(vocoder.finish()) == OVERLAP
    assert len(vocoder.finish()) == 0


def test_one_block_is_the_reference(bundle):
    pcm = vocode(no_noise(Vocoder(bundle)), [MEL[:, :20]])
    expected, _ = tiny_voice.hift()(torch.tensor(MEL[None, :, :20]), torch.zeros(1, 9600, 9))
    np.testing.assert_allclose(pcm, expected[0].numpy(), atol=1e-4)


def upstream(blocks, seed):
    """Contract F.4, word for word, with the reference vocoder."""
    rng, window = np.random.default_rng(seed), np.hamming(2 * OVERLAP)
    assert window[:OVERLAP] + window[OVERLAP:] == pytest.approx(1.08, abs=1e-3)
    out, cached, source, speech = [], np.zeros((80, 0), np.float32), None, None
    for i, block in enumerate(blocks):
        mel = np.concatenate((cached, block), axis=1)
        samples, old = mel.shape[1] * FRAME, 0 if source is None else OVERLAP
        noise = np.zeros((1, samples, 9), np.float32)
        rng.standard_normal(out=noise[0, old:], dtype=np.float32)
        pcm, made = tiny_voice.hift()(torch.tensor(mel[None]), torch.tensor(noise), source)
        pcm = pcm[0].numpy()
        if speech is not None:
            pcm[:OVERLAP] = pcm[:OVERLAP] * window[:OVERLAP] + speech * window[OVERLAP:]
        cached, source, speech = mel[:, -8:], made[:, -OVERLAP:], pcm[-OVERLAP:]
        out.append(pcm if i == len(blocks) - 1 else pcm[:-OVERLAP])
    return np.concatenate(out)


def test_parity_is_upstreams_protocol(bundle):
    blocks = split(MEL, [20, 40, 47])
    pcm = vocode(Vocoder(bundle, parity=True, seed=11), blocks)
    np.testing.assert_allclose(pcm, upstream(blocks, seed=11), atol=2e-4)


def test_windows():
    np.testing.assert_allclose(fade_in(OVERLAP) + fade_out(OVERLAP), 1, atol=1e-15)
    both = fade_in(OVERLAP, parity=True) + fade_out(OVERLAP, parity=True)
    np.testing.assert_allclose(both, 1.08, atol=2e-4)
    n = np.arange(2 * OVERLAP)
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * n / 7679)
    np.testing.assert_allclose(fade_in(OVERLAP, parity=True), hamming[:OVERLAP], atol=1e-12)
    np.testing.assert_allclose(fade_out(OVERLAP, parity=True), hamming[OVERLAP:], atol=1e-12)


def sources(vocoder, blocks):
    """The source that each stretch of the output was made from, without what was withheld."""
    made, run = [], vocoder._engine.run

    def spy(feeds):
        out = run(feeds)
        made.append(out["source"][0])
        return out

    vocoder._engine = SimpleNamespace(run=spy)
    vocode(vocoder, blocks)
    return np.concatenate([*(s[:-OVERLAP] for s in made[:-1]), made[-1]])


def test_harmonics_run_on_from_block_to_block(bundle):
    """Upstream's restart breaks the source at every seam; ours has no jump anywhere."""
    blocks = split(SMOOTH, [20, 40])
    whole = sources(no_noise(Vocoder(bundle)), [SMOOTH])
    ours = sources(no_noise(Vocoder(bundle)), blocks)
    theirs = sources(no_noise(Vocoder(bundle, parity=True)), blocks)
    smooth = np.abs(np.diff(whole)).max()
    seams = [20 * FRAME, 40 * FRAME]  # where the withheld source of a block ends
    assert np.abs(np.diff(ours)).max() < 1.5 * smooth
    assert max(abs(np.diff(theirs)[s - 1]) for s in seams) > 1.5 * smooth


def test_streams_do_not_touch(bundle):
    """After `finish` or `reset` nothing is left of the stream before, not even in the noise."""
    vocoder = Vocoder(bundle, seed=3)
    fresh = vocode(vocoder, split(MEL, [20, 40]))
    vocoder.push(MEL[:, 30:60])
    vocoder.reset()
    np.testing.assert_array_equal(vocode(vocoder, split(MEL, [20, 40])), fresh)
    np.testing.assert_array_equal(vocode(vocoder, split(MEL, [20, 40])), fresh)


def test_the_seed_decides_the_noise(bundle):
    one, same, other = (Vocoder(bundle, seed=s) for s in (1, 1, 2))
    pcm = vocode(one, [MEL[:, :12]])
    np.testing.assert_array_equal(vocode(same, [MEL[:, :12]]), pcm)
    assert not np.array_equal(vocode(other, [MEL[:, :12]]), pcm)
