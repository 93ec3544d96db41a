import numpy as np
import pytest
import torch
from lettered_checkpoint import make_lettered

from antiphon.export.analysis.states import AUDIO, TEXT, TRUNK, Depth, Passage, hidden_states
from antiphon.export.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Checkpoint.open(make_lettered(tmp_path_factory.mktemp("states"), alike=False))


def grid(rng, config, rows):
    """Written and spoken rows, mixed."""
    spoken = rng.random(rows) < 0.5
    text = np.where(spoken, config.modality_pad_token_id, rng.integers(0, 90, rows))
    return np.stack((text, rng.integers(0, config.eosp_token_id, rows)), axis=1)


def test_every_depth_is_that_of_the_whole_model(source):
    rng, c = np.random.default_rng(0), source.lm_config
    passages = [
        Passage(grid(rng, c, rows), first, rows) for rows, first in ((9, 2), (3, 0), (30, 25))
    ]
    found = dict(hidden_states(source, passages))
    shared, own = c.num_shared_layers, c.num_modality_layers
    branches = [Depth(b, shared + i + 1) for b in (TEXT, AUDIO) for i in range(own)]
    assert list(found) == [*(Depth(TRUNK, i) for i in range(shared + 1)), *branches]
    lm = source.reference().lm
    for number, passage in enumerate(passages):
        looked_at = slice(passage.first, passage.stop)
        for depth, exact in layers(lm, torch.from_numpy(passage.rows)[None]):
            got = found[depth][number]
            np.testing.assert_allclose(got, exact[0, looked_at].numpy(), atol=2e-5)


@torch.no_grad()
def layers(lm, rows):
    """Each layer's output over one passage, by hooks on the whole model."""
    seen = {}
    blocks = {TRUNK: "shared_block", TEXT: "text_block", AUDIO: "audio_block"}
    shared = len(lm.model.shared_block.layers)
    for block, name in blocks.items():
        start = 1 if block == TRUNK else shared + 1
        for i, layer in enumerate(getattr(lm.model, name).layers):
            depth = Depth(block, start + i)
            layer.register_forward_hook(lambda *a, depth=depth: seen.update({depth: a[2][0]}))
    lm(rows)
    return [(Depth(TRUNK, 0), lm.embed(rows)), *seen.items()]


def test_batches_do_not_mix_passages(source, monkeypatch):
    rng, c = np.random.default_rng(1), source.lm_config
    passages = [Passage(grid(rng, c, rows), 0, rows) for rows in (5, 12, 7, 12, 2)]
    together = [states for _, states in hidden_states(source, passages)]
    monkeypatch.setattr("antiphon.export.analysis.states._ROWS", 14)
    apart = [states for _, states in hidden_states(source, passages)]
    for a, b in zip(together, apart, strict=True):
        assert [x.shape for x in a] == [(len(p.rows), c.hidden_size) for p in passages]
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5)
