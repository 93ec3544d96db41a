"""What a checkpoint folder holds and lacks, and which card it fits; no tensor is ever read.

Every file is looked at by itself, so that a folder with parts missing is described all the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from antiphon.runtime.errors import AntiphonError

from . import checkpoint_facts as facts
from .checkpoint import (
    FILE_KEYS,
    AnyConfig,
    Checkpoint,
    FileKey,
    check_tensors,
    expected_shapes,
    open_tensors,
)
from .checkpoint_config import CODEC, LM, SPEAKER, check_folders, lm_config, tokenizer_config
from .manifest_facts import draft, voice_entries
from .memory_fit import Fit, Memory
from .reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from .safetensors_files import INDEX, WHOLE, open_safetensors, weight_map
from .speaker_file import check_speaker
from .tensor_files import Shapes, TensorFile
from .tensor_sizes import flow_config, hift_config

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file; what can be counted without reading a tensor."""

    file: str  # below the checkpoint folder
    size_bytes: int | None  # None: absent
    optional: bool = False
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)  # type -> parameters stored so


@dataclass(slots=True)
class Report:
    """A checkpoint folder."""

    directory: Path
    files: list[FileReport] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)  # part -> needed parameters
    fits: dict[int, dict[str, tuple[Fit, ...]]] = field(default_factory=dict)  # `Memory.table`
    voices: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Needed files that are not there."""
        return [f.file for f in self.files if f.size_bytes is None and not f.optional]

    @property
    def complete(self) -> bool:
        """Whether `antiphon export` would open it."""
        return not self.missing and not self.problems


def inspect(directory: Path, *, chunk: int = 5) -> Report:
    """Look at DIR. Raises CorruptFile only where there is no checkpoint folder at all.

    chunk  which flow is wanted, `flow/flow-chunk-N.pt`
    Where flow or vocoder are absent, the fits take them to be as large as the published ones.
    """
    if not any((directory / part).is_dir() for part in (LM, CODEC)):
        check_folders(directory)
    return _Inspection(directory, chunk).run()


class _Inspection:
    def __init__(self, directory: Path, chunk: int) -> None:
        self.directory, self.chunk = directory, chunk
        self.report = Report(directory)
        self.configs: dict[FileKey, AnyConfig] = {}
        self.opened: dict[FileKey, TensorFile] = {}

    def run(self) -> Report:
        """Look at every file by itself, then at what they say together."""
        self._language_model()
        self._codec()
        for key in FILE_KEYS:
            if key in self.configs:
                self._compare(key, self.configs[key])
        self._memory()
        if self.report.complete:
            self._attempt(self._whole)
        return self.report

    def _look(
        self, name: str, check: Callable[[Path], Value], *, optional: bool = False
    ) -> Value | None:
        """Note one file; what `check` makes of it, None where it is absent or refused."""
        path, value, size = self.directory / name, None, None
        if path.is_file():
            value, size = self._attempt(lambda: check(path)), path.stat().st_size
        stored = value.tensors.values() if isinstance(value, TensorFile) else ()
        dtypes: Counter[str] = Counter()
        for tensor in stored:
            dtypes[tensor.dtype] += tensor.count
        self.report.files.append(
            FileReport(name, size, optional, len(stored), dtypes.total(), dict(dtypes))
        )
        return value

    def _attempt(self, action: Callable[[], Value]) -> Value | None:
        try:
            return action()
        except AntiphonError as error:
            if str(error) not in self.report.problems:
                self.report.problems.append(str(error))
            return None

    def _language_model(self) -> None:
        config = self._look(f"{LM}/config.json", lambda _: lm_config(self.directory))
        self._look(f"{LM}/tokenizer.json", lambda path: _text_tokenizer(path, config))
        if config is not None:
            self.configs["lm"] = config
        folder = self.directory / LM
        names = {WHOLE}
        if (folder / INDEX).exists() or not (folder / WHOLE).exists():
            names = set((self._look(f"{LM}/{INDEX}", weight_map) or {}).values())
        for name in sorted(names):
            self._look(f"{LM}/{name}", open_safetensors)

    def _codec(self) -> None:
        config = self._look(f"{CODEC}/config.json", lambda _: tokenizer_config(self.directory))
        self._look(f"{CODEC}/preprocessor_config.json", lambda path: _features(path, config))
        self._look(f"{CODEC}/{WHOLE}", lambda _: self._open("tokenizer"))
        flow = self._look(f"{CODEC}/flow/flow-chunk-{self.chunk}.pt", lambda _: self._open("flow"))
        hift = self._look(f"{CODEC}/flow/hift.pt", lambda _: self._open("hift"))
        flow_sizes = self._attempt(lambda: flow_config(flow, self.chunk)) if flow else None
        hift_sizes = self._attempt(lambda: hift_config(hift)) if hift else None
        found: dict[FileKey, AnyConfig | None] = {
            "tokenizer": config,
            "flow": flow_sizes,
            "hift": hift_sizes,
        }
        self.configs |= {key: value for key, value in found.items() if value is not None}
        speaker_dim = (flow_sizes or FlowConfig()).speaker_dim
        self._look(SPEAKER, lambda path: check_speaker(path, speaker_dim), optional=True)

    def _open(self, key: FileKey) -> TensorFile:
        if key not in self.opened:
            self.opened[key] = open_tensors(self.directory, key, self.chunk)
        return self.opened[key]

    def _compare(self, key: FileKey, config: AnyConfig) -> None:
        """Count what is needed; if all files of the part are whole, compare them with it."""
        shapes = self._attempt(lambda: expected_shapes(config))
        if shapes is None:
            return
        self.report.parameters[key] = _count(shapes)
        folder = {"lm": f"{LM}/", "tokenizer": f"{CODEC}/{WHOLE}"}.get(key, f"{CODEC}/flow/")
        if not any(name.startswith(folder) for name in self.report.missing):
            self._attempt(lambda: check_tensors(key, self._open(key), config))

    def _memory(self) -> None:
        """The fits, once both config files are known; other parts may be absent."""
        counts = self.report.parameters
        if "lm" not in counts or "tokenizer" not in counts:
            return
        flow = counts.get("flow", _count(expected_shapes(FlowConfig())))
        hift = counts.get("hift", _count(expected_shapes(HiftConfig())))
        lm = self.configs["lm"]
        assert isinstance(lm, LMConfig)
        memory = Memory(expected_shapes(lm), lm, counts["tokenizer"] + flow + hift)
        self.report.fits = memory.table()

    def _whole(self) -> None:
        """What shows only when everything is opened together."""
        source = Checkpoint.open(self.directory, chunk=self.chunk)
        draft(source, name="", target="cpu", weights="")
        if source.voices:
            voice_entries(source, ())
        self.report.voices += source.voices


def _text_tokenizer(path: Path, config: LMConfig | None) -> None:
    if config is not None:
        facts.check_text_tokenizer(path, facts.special_ids(path, config), config)


def _features(path: Path, config: TokenizerConfig | None) -> None:
    if config is not None:
        facts.log_mel_max(path, config.num_mel_bins)


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
