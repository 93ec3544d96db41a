"""Engines of the published depth equal the reference: 40 layers, 56 estimator blocks, 16 layers.

Widths are reduced; vocabularies, chunk, steps and layer counts are the published ones. The same at
full width, for the codec, is `-m slow`.
"""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published import IDS, TOKENS
from published import NARROW_LM as LM
from stock import qwen3
from tiny_voice import read

from antiphon.export.encoder_graph import build_encoder
from antiphon.export.flow_encoder_graph import build_flow_encoder
from antiphon.export.flow_step_graph import build_flow_step
from antiphon.export.lm_graph import build_branch, build_trunk
from antiphon.export.reference.config import FlowConfig, HiftConfig, TokenizerConfig
from antiphon.export.reference.flow import Flow, start_noise
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.mel import pad_to_codes, whisper_log_mel
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.export.vocoder_graph import build_vocoder
from antiphon.quant.schemes import FP32
from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.embeddings import Embeddings, Table
from antiphon.runtime.flow import FlowDecoder
from antiphon.runtime.kv_ring import KVRing
from antiphon.runtime.lm import LanguageModel
from antiphon.runtime.manifest import FlowSizes, LMSizes
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT, PromptBuilder
from antiphon.runtime.prompt import Grid as Rows

PROMPT = PromptBuilder(TOKENS, IDS["templates"].__getitem__, IDS["content"].__getitem__)
WITHIN = 1e-4
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_thread():
    torch.set_num_threads(1)


def randomised(module, seed):
    """Every tensor random, also those that begin as ones and zeros; no gradients."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.eval().requires_grad_(False).named_parameters():
        spread = 0.2 if tensor.ndim == 1 or "pos_bias" in name else 0.0
        tensor.add_(spread * torch.randn(tensor.shape, generator=generator))
    return module


# --- language model: 32 shared and twice 4 layers


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(21)
    module = randomised(MossSpeechLM(LM), 22)
    for name, tensor in module.named_parameters():
        if tensor.ndim == 2 and "layers" in name:
            tensor.mul_(2.0)  # so that every layer has its say
        tensor.copy_(tensor.bfloat16())  # as the files store it (contract A.2)
    return module


@pytest.fixture(scope="module")
def session_lm(lm, tmp_path_factory):
    """The exported engines, as a conversation runs them."""
    folder, tensor = tmp_path_factory.mktemp("lm"), read(lm)
    paths = {
        "trunk": build_trunk(LM, tensor, FP32, folder / "trunk.onnx"),
        "speech_branch": build_branch(LM, "audio", tensor, FP32, folder / "speech_branch.onnx"),
        "text_branch": build_branch(LM, "text", tensor, FP32, folder / "text_branch.onnx"),
    }
    tables = (Table(tensor(f"model.{name}.weight")) for name in ("embed_tokens", "audio_embed"))
    sizes = LMSizes(
        text_vocab=LM.vocab_size,
        audio_vocab=LM.audio_vocab_size,
        hidden_size=LM.hidden_size,
        head_dim=LM.head_dim,
        kv_heads=LM.num_key_value_heads,
        shared_layers=LM.num_shared_layers,
        modality_layers=LM.num_modality_layers,
        rope_theta=LM.rope_theta,
        context_rows=10240,
    )
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(lm=sizes, tokens=SimpleNamespace(audio_pad=512)),
        embeddings=Embeddings(*tables, LM.modality_pad_token_id),
        engine=lambda name, **options: Engine.load(paths[name], **options),
    )
    return LanguageModel(bundle, exact=True)


def exact(lm, rows: Rows):
    """Text and audio logits of the reference after the last row."""
    grid = torch.from_numpy(rows)[None]
    hidden, _ = lm.model.shared_block(lm.embed(grid))
    heads = ((lm.text_lm_head, "text"), (lm.audio_lm_head, "audio"))
    rows = {
        name: getattr(lm.model, f"{name}_norm")(getattr(lm.model, f"{name}_block")(hidden)[0])
        for _, name in heads
    }
    return tuple(head(rows[name][0, -1]).numpy() for head, name in heads)


def close(got, expected):
    assert np.ptp(expected) > 1.0  # logits that say something
    np.testing.assert_allclose(got, expected, atol=WITHIN, rtol=0)


def test_forty_layers_equal_the_reference(lm, session_lm):
    """The worked example of contract B.3, then a spoken reply, then the branch that slept."""
    question = PROMPT.speech_turn("user", [2861, 10370, 11506])
    rows = [PROMPT.system(SPOKEN_PROMPT), question, PROMPT.assistant_prefix(spoken=True)]
    session_lm.reset()
    session_lm.prefill(np.concatenate(rows))
    assert session_lm.length == 35
    close(session_lm.speech_logits(), exact(lm, session_lm.history.rows.copy())[1])
    for code in (512, 16383, 0, 7, 7, 9000):
        session_lm.append((151667, code))
        session_lm.speech_logits()
    text, audio = exact(lm, session_lm.history.rows.copy())
    close(session_lm.speech_logits(), audio)
    assert session_lm.owed == session_lm.length  # the text branch has run nothing so far
    close(session_lm.text_logits(), text)


def test_the_text_path_is_qwen3(lm, session_lm):
    """36 layers of transformers' Qwen3ForCausalLM with the same weights, ids in, logits out."""
    rows = [PROMPT.system(TEXT_PROMPT)]
    rows += [PROMPT.text_turn("user", "My name is Alice and I like hiking.")]
    rows = np.concatenate([*rows, PROMPT.assistant_prefix(spoken=False)])
    stock = qwen3(lm, "text")
    assert len(stock.model.layers) == 36
    session_lm.reset()
    session_lm.prefill(rows)
    for token in (40, 1079, 304):  # three steps of a reply
        with torch.no_grad():
            expected = stock(torch.from_numpy(rows[None, :, 0]), logits_to_keep=1).logits
        close(session_lm.text_logits(), expected[0, -1].numpy())
        session_lm.append((token, 512))
        rows = session_lm.history.rows.copy()


@pytest.mark.parametrize("position", [0, 459, 10_239, 1_000_000])
def test_angles_do_not_drift(session_lm, position):
    """The rotary rows of any position to float32's last bits (contract A.3 step 4)."""
    rates = [1e6 ** (-2 * i / LM.head_dim) for i in range(LM.head_dim // 2)]
    rows = session_lm._rope(position, 1)
    for name, function in (("cos", np.cos), ("sin", np.sin)):
        expected = function(np.array(rates) * position)
        np.testing.assert_allclose(rows[name][0, 0], expected, atol=1e-7, rtol=0)


# --- flow: 6 + 4 encoder blocks, 14 stages of 4 transformers, 10 Euler steps

REDUCED = FlowConfig(width=64, heads=1, ffn=96, channels=32, transformer_heads=1)
SLOW = pytest.mark.slow


@cache
def flow(config):
    torch.manual_seed(23)
    return randomised(Flow(config), 24)


def voice(config, codes):
    rng = np.random.default_rng(codes)
    return Voice(
        prompt_codes=rng.integers(0, 16384, codes),
        prompt_mel=rng.normal(-5, 2, (config.mel_bins, 4 * codes)).astype(np.float32),
        embedding=rng.standard_normal(config.speaker_dim, np.float32),
    )


def flow_bundle(config, folder, prompt):
    tensor = read(flow(config))
    paths = {
        "flow_encoder": build_flow_encoder(config, tensor, FP32, folder / "flow_encoder.onnx"),
        "flow_step": build_flow_step(config, tensor, FP32, folder / "flow_step.onnx"),
    }
    sizes = FlowSizes(
        mel_bins=config.mel_bins,
        width=config.width,
        speaker_dim=config.speaker_dim,
        steps=config.steps,
        chunk_tokens=config.chunk_tokens,
        lookahead_tokens=config.lookahead_tokens,
        mel_per_token=config.mel_per_token,
    )
    return SimpleNamespace(
        manifest=SimpleNamespace(flow=sizes, tokens=SimpleNamespace(eosp=16384)),
        voice=lambda _: voice(config, prompt),
        noise=start_noise(frames=200).numpy(),
        engine=lambda name, **options: Engine.load(paths[name], **options),
    )


@pytest.mark.parametrize("config", [REDUCED, pytest.param(FlowConfig(), marks=SLOW)])
def test_the_whole_flow_equals_the_reference(config, tmp_path):
    """A prompt of one chunk and 8 codes of reply: three chunks, cached, the last one short."""
    assert (config.blocks, config.up_blocks) == (6, 4)
    assert (config.mid_blocks + 2) * config.transformers == 56
    decoder = FlowDecoder(flow_bundle(config, tmp_path, 5), exact=True)
    codes = np.random.default_rng(25).integers(0, 16384, 8)
    mel = np.concatenate((decoder.push(codes), decoder.finish()), axis=1)
    v = voice(config, 5)
    parts = tuple(torch.from_numpy(a) for a in (v.prompt_codes, v.prompt_mel, v.embedding))
    expected = flow(config).generate(torch.from_numpy(codes), parts, chunk=5).numpy()
    assert mel.shape == (80, 32)
    np.testing.assert_allclose(mel, expected, atol=WITHIN, rtol=0)


# --- vocoder and speech tokenizer


@pytest.mark.parametrize(
    "config",
    [HiftConfig(base_channels=64, f0_channels=48), pytest.param(HiftConfig(), marks=SLOW)],
)
def test_the_vocoder_equals_the_reference(config, tmp_path):
    torch.manual_seed(26)
    hift = randomised(Hift(config), 27)
    hift.f0_predictor.classifier.bias.fill_(140.0)  # voiced, so that the harmonics count
    engine = Engine.load(build_vocoder(config, read(hift), tmp_path / "vocoder.onnx"))
    generator = torch.Generator().manual_seed(28)
    mel = torch.randn(1, 80, 20, generator=generator) - 4
    noise = torch.randn(1, 9600, 9, generator=generator)
    pcm, source = hift(mel, noise)
    start = {"source_tail": np.zeros((1, 0)), "phase": np.zeros((1, 9)), "phase_frame": [0]}
    feeds = {"mel": mel.numpy(), "noise": noise.numpy()} | start
    out = engine.run({name: np.asarray(value) for name, value in feeds.items()})
    assert pcm.std() > 1e-3
    np.testing.assert_allclose(out["source"], source.numpy(), atol=WITHIN, rtol=0)
    np.testing.assert_allclose(out["pcm"], pcm.numpy(), atol=WITHIN, rtol=0)


@pytest.mark.parametrize(
    ("width", "heads", "ffn"), [(64, 1, 96), pytest.param(1280, 20, 5120, marks=SLOW)]
)
def test_sixteen_layers_give_the_codes_of_the_reference(width, heads, ffn, tmp_path):
    config = TokenizerConfig(
        d_model=width,
        encoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        quantize_position=16,
        quantize_vocab_size=16384,
    )
    torch.manual_seed(29)
    tokenizer = randomised(SpeechTokenizer(config), 30)
    pcm = 0.1 * torch.randn(2 * 16000, generator=torch.Generator().manual_seed(31))
    mel = whisper_log_mel(pad_to_codes(pcm[None]), 128)
    pooled = tokenizer.encoder(mel)[0]
    book = tokenizer.encoder.codebook.weight
    book.copy_(pooled.mean(0) + pooled.std(0) * book)  # rows among the frames they stand for
    path = build_encoder(config, read(tokenizer), FP32, tmp_path / "encoder.onnx")
    engine = Engine.load(path, exact=True)
    ring = KVRing.for_engine(engine, 1500, pinned=1500, initial=128)
    tails = {n: np.zeros(engine.inputs[n].shape, np.float32) for n in ("conv1_tail", "conv2_tail")}
    codes = []
    for start in range(0, mel.shape[2], 40):  # five codes a call
        part = mel[:, :, start : start + 40].numpy()
        frames = part.shape[2] // 2
        feeds = {"log_mel": part, "frame_index": np.array([start // 2]), **tails}
        out = engine.run(feeds | ring.feeds(start // 2, frames), [ring])
        ring.advance(frames)
        tails = {name: out[f"{name}_out"] for name in tails}
        codes += out["codes"][0].tolist()
    expected = tokenizer.encode(pcm).tolist()
    assert codes == expected
    assert len(set(codes)) > 5
