"""How far a bundle's engines are from the reference, measured while the bundle is written.

Each engine makes one call from an empty state, with the kernels it will be used with; that state
carries over from call to call is for the tests. Of the reference, one part at a time is in memory,
and of its LM one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from antiphon.quant.error import max_abs, sqnr_db
from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle_files import Voice, read_array
from antiphon.runtime.embeddings import Table
from antiphon.runtime.kv_ring import HIDDEN
from antiphon.runtime.manifest import ENGINES
from antiphon.runtime.resample import resample

from .checkpoint import Checkpoint
from .reference.flow import Flow, start_noise, step_times
from .reference.hift import Hift
from .reference.lm import DecoderLayer, RMSNorm, rotary
from .reference.mel import pad_to_codes, whisper_log_mel
from .reference.speech_tokenizer import SpeechTokenizer
from .tables import scales_path

Measures = dict[str, float]
Floats = NDArray[np.float32]
Feeds = dict[str, NDArray[Any]]
Module = TypeVar("Module", bound=nn.Module)

LM_ROWS = 48
BRANCHES = {"speech_branch": "audio", "text_branch": "text"}  # as the checkpoint spells them
VOICE = ("encoder", "flow_encoder", "flow_step", "vocoder")  # measured on a voice's prompt
SPEECH_FRAMES = 1000  # of the voice prompt at 50 Hz, 20 s


def measure(
    source: Checkpoint,
    folder: Path,
    engines: Collection[str] = ENGINES,
    voice: Voice | None = None,
) -> dict[str, Measures]:
    """Compare engines in `folder` with the reference; floats by error, codes by agreement.

    Those of `VOICE` need a voice with a prompt, `voice` or one of the checkpoint's; without one
    they are left out.
    """
    found: dict[str, Measures] = {}
    with torch.no_grad():
        if {"trunk", *BRANCHES} & set(engines):
            found |= _language(source, folder, engines)
        voice = voice or prompted(source.voices.values())
        if voice is not None and set(VOICE) & set(engines):
            found |= _codec(source, folder, voice, engines)
    return found


def prompted(voices: Iterable[Voice]) -> Voice | None:
    """The first voice that has a prompt."""
    return next((voice for voice in voices if len(voice.prompt_codes)), None)


def compare(exact: NDArray[Any], measured: NDArray[Any]) -> Measures:
    """Error of float outputs. Equal arrays have no noise, hence no ratio."""
    found, ratio = {"max_abs_error": max_abs(exact, measured)}, sqnr_db(exact, measured)
    return found | ({"sqnr_db": ratio} if np.isfinite(ratio) else {})


def _call(path: Path, feeds: Feeds, sizes: Mapping[str, int]) -> Feeds:
    """Run an engine once; `sizes` resolves the symbols of the inputs that start as zeros."""
    engine = Engine.load(path)
    zeros = {
        name: np.zeros([d if isinstance(d, int) else sizes[d] for d in spec.shape], spec.dtype)
        for name, spec in engine.inputs.items()
        if name not in feeds
    }
    return engine.run(feeds | zeros)


def loaded(make: Callable[[], Module], read: Callable[[str], Floats], prefix: str = "") -> Module:
    """A reference module with its weights, which `read` finds under `prefix`."""
    with torch.device("meta"):
        module = make()
    state = {name: torch.from_numpy(read(prefix + name)) for name in module.state_dict()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


def _language(source: Checkpoint, folder: Path, engines: Collection[str]) -> dict[str, Measures]:
    """Trunk: hidden rows. Branches: logits of the last row, from the trunk engine's rows.

    Where the trunk is left out, from the reference's rows.
    """
    c = source.lm_config
    cos, sin = rotary(torch.arange(LM_ROWS), c.head_dim, c.rope_theta, torch.float32)
    half = c.head_dim // 2
    steering: Feeds = {
        "cos": cos[None, :, :half].numpy(),
        "sin": sin[None, :, :half].numpy(),
        "mask": _causal(LM_ROWS),
    }

    def run(name: str, rows: Feeds) -> NDArray[Any]:
        out = _call(folder / f"{name}.onnx", steering | rows, {"C": LM_ROWS})
        return out["hidden" if name == "trunk" else "logits"]

    embeddings = _embeddings(source, folder)
    exact = _layers(source, "shared_block", torch.from_numpy(embeddings))
    found, hidden = {}, exact.numpy()
    if "trunk" in engines:
        hidden = run("trunk", {"embeddings": embeddings})
        found["trunk"] = compare(exact.numpy(), hidden)
    for name, branch in BRANCHES.items():
        if name in engines:
            found[name] = compare(_logits(source, branch, exact), run(name, {"hidden": hidden}))
    return found


def _causal(rows: int) -> Floats:
    """Additive mask [S, S]."""
    return np.triu(np.full((rows, rows), HIDDEN, np.float32), 1)


def _embeddings(source: Checkpoint, folder: Path) -> Floats:
    """Rows [1, S, H] of both tables of the bundle, ids drawn with a fixed seed."""
    c, rng = source.lm_config, np.random.default_rng(0)
    parts = []
    for file, count in (("embed_text.npy", c.vocab_size), ("embed_audio.npy", c.eosp_token_id)):
        path = folder / file
        scales = read_array(scales_path(path)) if scales_path(path).exists() else None
        table = Table(read_array(path), scales)
        parts.append(table.gather(rng.integers(0, count, LM_ROWS // 2)))
    return np.concatenate(parts)[None]


def _layers(source: Checkpoint, block: str, x: Tensor) -> Tensor:
    """Run one block of the reference, one layer in memory at a time."""
    c = source.lm_config
    depth = c.num_shared_layers if block == "shared_block" else c.num_modality_layers
    rope = rotary(torch.arange(x.shape[1]), c.head_dim, c.rope_theta, x.dtype)
    for i in range(depth):
        prefix = f"model.{block}.layers.{i}."
        layer = loaded(lambda: DecoderLayer(c), lambda name: source.read("lm", name), prefix)
        x, _ = layer(x, rope, None)
    return x


def _logits(source: Checkpoint, branch: str, hidden: Tensor) -> Floats:
    """Reference logits [1, V] of the last row."""
    c = source.lm_config
    last = _layers(source, f"{branch}_block", hidden)[:, -1]
    norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
    norm.weight.copy_(torch.from_numpy(source.read("lm", f"model.{branch}_norm.weight")))
    logits: Floats = norm(last).numpy() @ source.read("lm", f"{branch}_lm_head.weight").T
    return logits


def _codec(
    source: Checkpoint, folder: Path, voice: Voice, engines: Collection[str]
) -> dict[str, Measures]:
    """The other engines, on a voice: its prompt is the speech at hand."""
    found: dict[str, Measures] = {}
    if {"vocoder", "encoder"} & set(engines):
        noise, pcm = _speech(source, mel := voice.prompt_mel[None, :, :SPEECH_FRAMES])
        if "vocoder" in engines:
            got = _call(folder / "vocoder.onnx", {"mel": mel, "noise": noise}, {"P": 0})
            found["vocoder"] = compare(pcm, got["pcm"])
        if "encoder" in engines:
            heard = resample(pcm[0], source.hift_config.sample_rate_hz, 16000)
            found["encoder"] = _encoder(source, folder, heard)
    if {"flow_encoder", "flow_step"} & set(engines):
        found |= _flow(source, folder, voice, engines)
    return found


def _speech(source: Checkpoint, mel: Floats) -> tuple[Floats, Floats]:
    """Noise [1, 480T, 9] and the samples [1, 480T] that the reference makes of it and mel."""
    c = source.hift_config
    hift = loaded(lambda: Hift(c), lambda name: source.read("hift", name))
    samples = mel.shape[2] * c.samples_per_frame
    noise = np.random.default_rng(0).standard_normal((1, samples, c.harmonics + 1), np.float32)
    return noise, hift(torch.from_numpy(mel), torch.from_numpy(noise))[0].numpy()


def _encoder(source: Checkpoint, folder: Path, speech: Floats) -> Measures:
    """Share of equal codes over speech [S] at 16 kHz."""
    c = source.tokenizer_config
    tokenizer = loaded(lambda: SpeechTokenizer(c), lambda name: source.read("tokenizer", name))
    log_mel = whisper_log_mel(pad_to_codes(torch.from_numpy(speech)[None]), c.num_mel_bins)
    exact = tokenizer.encoder.quantize(tokenizer.encoder(log_mel)).numpy()
    rows = log_mel.shape[2] // 2
    feeds = {"log_mel": log_mel.numpy(), "mask": _causal(rows)}
    codes = _call(folder / "encoder.onnx", feeds, {"C": rows})["codes"]
    return {"code_agreement": float((codes == exact).mean()), "codes": float(codes.size)}


def _flow(
    source: Checkpoint, folder: Path, voice: Voice, engines: Collection[str]
) -> dict[str, Measures]:
    """The first chunk of the voice prompt: its mu, and the first Euler step over it."""
    c = source.flow_config
    flow = loaded(lambda: Flow(c), lambda name: source.read("flow", name))
    n, frames = c.chunk_tokens, c.chunk_tokens * c.mel_per_token
    codes = np.resize(voice.prompt_codes, (1, n + c.lookahead_tokens))
    mu = flow.mu(torch.from_numpy(codes), chunk=n, final=False)
    found: dict[str, Measures] = {}
    if "flow_encoder" in engines:
        feeds: Feeds = {
            "codes": codes[:, :n],
            "lookahead": codes[:, n:],
            "lookahead_gain": np.ones((1, c.lookahead_tokens), np.float32),
            "embedding": voice.embedding[None],
        }
        sizes = {"n": n, "C": n, "4*n": frames, "CF": frames}
        got = _call(folder / "flow_encoder.onnx", feeds, sizes)
        found["flow_encoder"] = compare(mu.numpy(), got["mu"])
    if "flow_step" in engines:
        cond = np.resize(voice.prompt_mel, (1, c.mel_bins, frames))
        feeds, exact = _first_step(flow, mu, voice, cond)
        got = _call(folder / "flow_step.onnx", feeds, {"F": frames, "C": frames})
        found["flow_step"] = compare(exact, got["x_out"])
    return found


def _first_step(flow: Flow, mu: Tensor, voice: Voice, cond: Floats) -> tuple[Feeds, Floats]:
    """Inputs of the first Euler step, and what the reference makes of them."""
    c, end = flow.config, step_times(flow.config.steps)[1]
    x = start_noise(c.mel_bins, cond.shape[2])[None]
    speaker = flow.speaker(torch.from_numpy(voice.embedding[None]))
    both = [torch.cat((v, torch.zeros_like(v))) for v in (mu, speaker, torch.from_numpy(cond))]
    v = flow.velocity(x.expand(2, -1, -1), torch.zeros(2), (both[0], both[1], both[2]), None)
    exact = x + end * ((1.0 + c.cfg_rate) * v[:1] - c.cfg_rate * v[1:])
    feeds: Feeds = {
        "x": x.numpy(),
        "mu": mu.numpy(),
        "speaker": speaker.numpy(),
        "cond": cond,
        "dt": np.array([end]),
    }
    return feeds, exact.numpy()
