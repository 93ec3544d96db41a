"""`manifest.json`: every fact about a bundle, as frozen dataclasses that refuse unknown keys.

The exporter fills them in and writes `to_dict()`; the runtime reads `from_dict()`. Nothing else
about a model is known to the runtime: no id, size or rate is written in its code.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .errors import ConfigError, CorruptFile, VersionMismatch
from .strict import parse
from .tensors import TensorSpec

FORMAT_VERSION = 1
ENGINES = (
    "encoder",
    "trunk",
    "speech_branch",
    "text_branch",
    "flow_encoder",
    "flow_step",
    "vocoder",
)
OPTIONAL_ENGINES = ("speaker",)  # without it no voice can be added (contract G)
_PLAIN_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MAX_SIZE = 1 << 30
_MOST = {  # of what we would make as many arrays of, or calls
    "shared_layers": 1024,
    "modality_layers": 1024,
    "mel_bins": 1024,
    "harmonics": 1024,
    "speaker_dim": 4096,
    "steps": 100,
    "chunk_tokens": 100,
    "lookahead_tokens": 100,
    "mel_per_token": 100,
    "samples_per_frame": 48_000,
    "segment_samples": 480_000,  # contract D.3 step 2
}
_HEARD_HZ, _CODE_SAMPLES = 16_000, 1280  # what `encoder.py` and `log_mel.py` are written for
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file inside the bundle, at most one folder deep."""

    file: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.file):
            raise CorruptFile(
                f"manifest.json: file name {self.file!r} leaves the bundle or is no plain name, "
                "expected NAME or FOLDER/NAME; do not use this bundle"
            )
        if not _SHA256.fullmatch(self.sha256) or self.size_bytes < 0:
            raise CorruptFile(
                f"manifest.json: {self.file}: sha256 {self.sha256!r}, size {self.size_bytes}, "
                "expected 64 hexadecimal digits and a size >= 0; export the bundle again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """One graph, the data files its weights are in, and its declared inputs and outputs."""

    file: FileEntry
    data: tuple[FileEntry, ...] = ()
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scheme: str  # how its matrices are stored, a name of `antiphon.quant.schemes`
    parity: dict[str, float] = field(default_factory=dict)  # against the reference, at export

    def __post_init__(self) -> None:
        if not self.file.file.endswith(".onnx"):  # the engine library reads others otherwise
            raise CorruptFile(
                f"manifest.json: engine {self.file.file}, expected a file NAME.onnx; export the "
                "bundle again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """Embedding rows [V, H]: float32, float16, or int8 codes with float32 scales [V]."""

    rows: FileEntry
    scales: FileEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids that steer a conversation (contract B.1). `eosp` and `audio_pad` are audio ids."""

    endoftext: int
    im_start: int
    im_end: int
    sosp: int  # start of speech
    modality_pad: int  # text id of every spoken row
    eosp: int  # end of speech
    audio_pad: int  # audio id of every text row; never embedded, perhaps a code, perhaps no id

    def __post_init__(self) -> None:
        text = (self.endoftext, self.im_start, self.im_end, self.sosp, self.modality_pad)
        if min(*text, self.eosp, self.audio_pad) < 0 or len(set(text)) < len(text):
            raise ConfigError(f"special ids must be distinct and >= 0, got {self}")

    @property
    def stops(self) -> tuple[int, int]:
        """Text ids that end a reply."""
        return (self.endoftext, self.im_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How ids are drawn, the same for both channels (contract C.2, C.3)."""

    do_sample: bool = True
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    repetition_penalty: float = 1.1
    max_new_tokens: int = 500  # rows of one reply
    min_new_tokens: int = 0  # number of the first row that may end the speech

    def __post_init__(self) -> None:
        ok = 1e-6 <= self.temperature <= 100 and 0 < self.top_p <= 1 and self.top_k >= 1
        if not (ok and 1e-6 <= self.repetition_penalty <= 100):  # or scores leave float32
            raise ConfigError(
                "sampling needs 1e-06 <= temperature <= 100, 0 < top_p <= 1, top_k >= 1 and "
                f"1e-06 <= repetition_penalty <= 100, got {self}"
            )
        if not (self.min_new_tokens >= 0 and self.max_new_tokens >= 1):
            raise ConfigError(
                f"sampling needs min_new_tokens >= 0 and max_new_tokens >= 1, got {self}"
            )

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Refuses unknown keys and wrong types."""
        config: Self = parse(cls, raw, "sampling")
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """System turns for a spoken and for a written reply (contract B.2)."""

    spoken: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LMSizes:
    """Language model (contract A.1)."""

    text_vocab: int
    audio_vocab: int
    hidden_size: int
    head_dim: int
    kv_heads: int
    shared_layers: int
    modality_layers: int  # of each branch
    rope_theta: float
    context_rows: int  # longest conversation it was trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSizes:
    """Speech tokenizer (contract D.1)."""

    mel_bins: int
    code_count: int
    sample_rate_hz: int = _HEARD_HZ
    samples_per_code: int = _CODE_SAMPLES
    segment_samples: int = 480_000  # after which everything restarts

    def __post_init__(self) -> None:
        if self.segment_samples % _CODE_SAMPLES:
            raise ConfigError(f"segments of {self.segment_samples} samples, expected whole codes")
        if (self.sample_rate_hz, self.samples_per_code) != (_HEARD_HZ, _CODE_SAMPLES):
            raise ConfigError(
                f"an encoder of {self.samples_per_code} samples per code at "
                f"{self.sample_rate_hz} Hz, expected {_CODE_SAMPLES} at {_HEARD_HZ}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSizes:
    """Flow decoder (contract E.1)."""

    mel_bins: int
    width: int
    speaker_dim: int
    steps: int
    chunk_tokens: int
    lookahead_tokens: int
    mel_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderSizes:
    """Vocoder (contract F.1)."""

    mel_bins: int
    harmonics: int  # above the fundamental
    sample_rate_hz: int
    samples_per_frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole manifest. Field order is the order in the file."""

    format_version: int
    name: str
    target: str  # the library and device the engines are for: cpu, cuda
    weights: str  # the scheme asked for; each engine states its own
    lm: LMSizes
    encoder: EncoderSizes
    flow: FlowSizes
    vocoder: VocoderSizes
    tokens: SpecialTokens
    prompts: Prompts
    sampling: SamplingConfig
    log_mel_max: float  # loudest log10 bin the streaming encoder assumes (contract D.4)
    engines: dict[str, EngineEntry]
    text_embeddings: TableEntry
    audio_embeddings: TableEntry
    tokenizer: FileEntry
    noise: FileEntry  # float32 [M, T], the flow's start noise (contract E.6)
    voices: dict[str, FileEntry]  # the first one is the default
    sources: dict[str, str] = field(default_factory=dict)  # where it came from: words, hashes
    quality: dict[str, str | int | float] = field(default_factory=dict)  # by `antiphon eval`

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Read a manifest. Raises VersionMismatch, or CorruptFile naming the key."""
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise VersionMismatch(
                f"manifest.json: format version {version!r}, this program reads {FORMAT_VERSION}; "
                "export the bundle again, or install the version that wrote it"
            )
        manifest: Self = parse(cls, raw, "manifest.json")
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return asdict(self)

    def __post_init__(self) -> None:
        for part in (self.lm, self.encoder, self.flow, self.vocoder):
            for key, value in asdict(part).items():
                most = _MOST.get(key, _MAX_SIZE)
                if not 1 <= value <= most:
                    raise ConfigError(f"{key} is {value}, expected 1 to {most}")
        if not abs(self.log_mel_max) <= _MAX_SIZE:
            raise ConfigError(f"log_mel_max is {self.log_mel_max}, expected a finite number")
        t = self.tokens
        text = max(t.endoftext, t.im_start, t.im_end, t.sosp, t.modality_pad)
        if text >= self.lm.text_vocab or t.eosp >= self.lm.audio_vocab:
            raise ConfigError(
                f"special ids {t} do not fit in {self.lm.text_vocab} text and "
                f"{self.lm.audio_vocab} audio ids"
            )
        if t.eosp < self.encoder.code_count:
            codes = self.encoder.code_count
            raise ConfigError(f"end of speech is {t.eosp}, expected an id behind the {codes} codes")
        self._check_voice()

    def _check_voice(self) -> None:
        """What is made of a code must be as long as what a code was made of."""
        flow, vocoder = self.flow, self.vocoder
        if flow.mel_bins != vocoder.mel_bins:
            raise ConfigError(
                f"the flow makes {flow.mel_bins} mel bins, the vocoder takes {vocoder.mel_bins}"
            )
        made = flow.mel_per_token * vocoder.samples_per_frame
        if made * _HEARD_HZ != vocoder.sample_rate_hz * _CODE_SAMPLES:
            raise ConfigError(
                f"the voice makes {made} samples of a code, expected "
                f"{vocoder.sample_rate_hz * _CODE_SAMPLES / _HEARD_HZ:g} at "
                f"{vocoder.sample_rate_hz} Hz"
            )

    @property
    def files(self) -> list[FileEntry]:
        """Every file the bundle consists of, besides the manifest."""
        found = [self.tokenizer, self.noise, *self.voices.values()]
        for table in (self.text_embeddings, self.audio_embeddings):
            found += [table.rows, *([table.scales] if table.scales else [])]
        for engine in self.engines.values():
            found += [engine.file, *engine.data]
        return found
