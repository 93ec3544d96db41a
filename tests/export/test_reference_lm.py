"""The language model equals transformers' Qwen3 on each branch, and its cache changes nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stock import qwen3

from antiphon.export.reference.config import LMConfig
from antiphon.export.reference.lm import MossSpeechLM, RMSNorm, rotary
from antiphon.runtime.errors import ConfigError

PAD = 120
CONFIG = LMConfig(
    vocab_size=128,
    audio_vocab_size=72,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_shared_layers=2,
    num_modality_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=16,
    rope_theta=1e6,
    modality_pad_token_id=PAD,
    sosp_token_id=119,
    eosp_token_id=64,
    audio_pad_token_id=5,
)
ROWS = 24


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(12)
    module = MossSpeechLM(CONFIG).eval().requires_grad_(False)
    for name, tensor in module.named_parameters():
        if "norm" in name:  # ones would hide a norm applied twice or in the wrong place
            tensor.add_(0.3 * torch.randn(tensor.shape))
    return module


@pytest.fixture(scope="module")
def grid():
    """A mixture of text rows and spoken rows [1, T, 2]."""
    generator = torch.Generator().manual_seed(13)
    text = torch.randint(0, PAD, (1, ROWS), generator=generator)
    audio = torch.randint(0, 72, (1, ROWS), generator=generator)
    spoken = torch.rand(1, ROWS, generator=generator) < 0.5
    return torch.stack((text.masked_fill(spoken, PAD), audio), dim=-1)


# --- against transformers


@pytest.mark.parametrize("branch", ["text", "audio"])
def test_each_branch_is_qwen3(lm, grid, branch):
    stock = qwen3(lm, branch)
    with torch.no_grad():
        expected = stock(inputs_embeds=lm.embed(grid)).logits
        logits = lm(grid)[0 if branch == "text" else 1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1


@pytest.mark.parametrize("branch", ["text", "audio"])
def test_the_rows_of_one_channel_are_a_stock_prompt(lm, grid, branch):
    """All-text and all-speech grids go through the stock embedding too."""
    ids = grid[..., 1]
    text = ids if branch == "text" else torch.full_like(ids, PAD)
    stock = qwen3(lm, branch)
    with torch.no_grad():
        expected = stock(ids).logits
        logits = lm(torch.stack((text, ids), -1))[0 if branch == "text" else 1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


# --- embedding by selection


def test_a_row_is_embedded_from_one_channel(lm):
    grid = torch.tensor([[[7, 5], [7, 71], [PAD, 3], [PAD, 64], [PAD - 1, 64]]])
    embedded = lm.embed(grid)[0]
    expected = [(lm.model.embed_tokens, 7), (lm.model.embed_tokens, 7), (lm.model.audio_embed, 3)]
    expected += [(lm.model.audio_embed, 64), (lm.model.embed_tokens, PAD - 1)]
    for row, (table, index) in zip(embedded, expected, strict=True):
        assert torch.equal(row, table.weight[index])


def test_the_unselected_id_may_be_anything(lm):
    grid = torch.tensor([[[7, 10**9], [PAD, 3]]])
    assert torch.equal(lm.embed(grid)[0, 0], lm.model.embed_tokens.weight[7])


def test_the_pad_row_of_the_text_table_is_never_used(lm, grid):
    spoiled = MossSpeechLM(CONFIG).eval().requires_grad_(False)
    spoiled.load_state_dict(lm.state_dict())
    spoiled.model.embed_tokens.weight[PAD] = torch.nan
    for a, b in zip(spoiled(grid), lm(grid), strict=True):
        assert torch.equal(a, b)


# --- cache


@settings(max_examples=10)
@given(cuts=st.sets(st.integers(1, ROWS - 1), max_size=6))
def test_cache_changes_nothing(lm, grid, cuts):
    text, audio = lm(grid)
    shared = None
    caches = {lm.text_logits: None, lm.audio_logits: None}
    rows = {lm.text_logits: [], lm.audio_logits: []}
    for piece in torch.tensor_split(lm.embed(grid), sorted(cuts), dim=1):
        hidden, shared = lm.model.shared_block(piece, shared)
        for branch, past in caches.items():
            logits, caches[branch] = branch(hidden, past)
            rows[branch].append(logits)
    assert shared[0][0].shape == (1, 2, ROWS, 16)
    torch.testing.assert_close(torch.cat(rows[lm.text_logits], 1), text, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(rows[lm.audio_logits], 1), audio, atol=1e-5, rtol=0)


def test_a_branch_that_slept_catches_up(lm, grid):
    """The rows it owes are paid in one batch (contract A.3, permitted shortcuts)."""
    hidden, _ = lm.model.shared_block(lm.embed(grid))
    first, past = lm.text_logits(hidden[:, :6])
    late, _ = lm.text_logits(hidden[:, 6:], past)
    torch.testing.assert_close(torch.cat((first, late), 1), lm(grid)[0], atol=1e-5, rtol=0)


def test_rows_see_no_later_row(lm, grid):
    changed = grid.clone()
    changed[0, 15:] = torch.tensor([3, 3])
    for a, b in zip(lm(grid), lm(changed), strict=True):
        torch.testing.assert_close(a[:, :15], b[:, :15], atol=1e-5, rtol=0)
        assert (a[:, 15:] - b[:, 15:]).abs().max() > 1e-3


def test_branches_do_not_disturb_each_other(lm, grid):
    changed = MossSpeechLM(CONFIG).eval().requires_grad_(False)
    changed.load_state_dict(lm.state_dict())
    changed.model.text_block.layers[0].mlp.up_proj.weight.add_(1.0)
    changed.text_lm_head.weight.add_(1.0)
    assert torch.equal(changed(grid)[1], lm(grid)[1])
    assert not torch.equal(changed(grid)[0], lm(grid)[0])


# --- numbers


def test_norm_rounds_before_it_scales():
    """In bfloat16 the order shows (contract A.3)."""
    norm = RMSNorm(256, 1e-6).bfloat16().requires_grad_(False)
    generator = torch.Generator().manual_seed(14)
    norm.weight[:] = torch.randn(256, generator=generator)
    x = torch.randn(8, 256, generator=generator).bfloat16()
    exact = x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    rounded = exact.float().bfloat16() * norm.weight
    fused = (exact * norm.weight.double()).float().bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert (norm(x) == rounded).float().mean() > 0.999
    assert not torch.equal(rounded, fused)


def test_rotary_rows():
    """Half-split, angles p·theta^(-2i/D), exact at the end of the longest context."""
    positions = torch.tensor([0, 1, 459, 10239])
    cos, sin = rotary(positions, 128, 1e6, torch.float32)
    assert cos.shape == (4, 128)
    assert torch.equal(cos[:, :64], cos[:, 64:])
    rates = (1.0 / 1e6 ** (torch.arange(0, 128, 2).float() / 128)).double()
    angles = positions[:, None].double() * rates
    torch.testing.assert_close(cos[:, :64].double(), angles.cos(), atol=1e-3, rtol=0)
    torch.testing.assert_close(sin[:3, 64:].double(), angles.sin()[:3], atol=5e-5, rtol=0)


def test_published_config_is_read():
    raw = {
        "vocab_size": 151680,
        "audio_vocab_size": 16512,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_shared_layers": 32,
        "num_modality_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_theta": 1000000,
        "transformers_version": "4.57.0",
    }
    config = LMConfig.from_json(raw)
    assert (config.modality_pad_token_id, config.sosp_token_id) == (151667, 151646)
    assert (config.eosp_token_id, config.audio_pad_token_id) == (16384, 512)
    assert config.rms_norm_eps == 1e-6
    for missing in ("rope_theta", "head_dim"):
        with pytest.raises(ConfigError, match=missing):
            LMConfig.from_json({name: v for name, v in raw.items() if name != missing})
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        replace(config, num_hidden_layers=40)
