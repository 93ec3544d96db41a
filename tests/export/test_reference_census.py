"""The reference modules at real size have the published tensors, no more and no fewer."""

import lookalike
import pytest
import torch

from antiphon.export.reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

LM = LMConfig(
    vocab_size=151680,
    audio_vocab_size=16512,
    hidden_size=4096,
    intermediate_size=12288,
    num_hidden_layers=36,
    num_shared_layers=32,
    num_modality_layers=4,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    rope_theta=1e6,
)
TOKENIZER = TokenizerConfig(
    d_model=1280,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    quantize_position=16,
    quantize_vocab_size=16384,
)
PARTS = {  # contract A.2, D.2, E.1, F; numbers of tensors and values: contract I
    "lm": (lambda: MossSpeechLM(LM), 446, 9_095_694_336),
    "tokenizer": (lambda: SpeechTokenizer(TOKENIZER), 246, 343_119_360),
    "flow": (lambda: Flow(FlowConfig()), 1121, 120_724_464),
    "hift": (lambda: Hift(HiftConfig()), 328, 20_821_295),
}


@pytest.fixture(scope="module")
def shapes():
    """Tensor shapes of the four reference modules at real size; nothing is allocated."""
    with torch.device("meta"):
        return {
            key: {name: tuple(t.shape) for name, t in build().state_dict().items()}
            for key, (build, _, _) in PARTS.items()
        }


@pytest.mark.parametrize("key", PARTS)
def test_names_and_shapes(shapes, key):
    assert shapes[key] == lookalike.census(key)


@pytest.mark.parametrize("key", PARTS)
def test_counts(shapes, key):
    _, tensors, values = PARTS[key]
    assert len(shapes[key]) == tensors
    assert sum(torch.Size(shape).numel() for shape in shapes[key].values()) == values


def test_one_decoder_layer(shapes):
    layer = {n: s for n, s in shapes["lm"].items() if n.startswith("model.text_block.layers.2.")}
    assert len(layer) == 11
    assert sum(torch.Size(shape).numel() for shape in layer.values()) == 192_946_432


def test_parts_of_the_flow(shapes):
    def size(prefix):
        return sum(torch.Size(s).numel() for n, s in shapes["flow"].items() if n.startswith(prefix))

    assert size("input_embedding.") == 10_485_760
    assert size("encoder.") == 38_879_744
    assert size("decoder.estimator.") == 71_302_480
    assert size("encoder_proj.") + size("spk_embed_affine_layer.") == 56_480


def test_layers_beyond_the_needed_ones_are_not_built(shapes):
    """`encoder_layers` says 32; only `quantize_position` layers exist, and no final norm."""
    assert not [name for name in shapes["tokenizer"] if "layers.16." in name]
    assert "encoder.layer_norm.weight" not in shapes["tokenizer"]
    assert "encoder.layers.0.self_attn.k_proj.bias" not in shapes["tokenizer"]
    assert not {"model.norm.weight", "lm_head.weight"} & shapes["lm"].keys()
