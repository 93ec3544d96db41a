"""Each part of a bundle written from a checkpoint: engines and tables, by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.runtime.manifest import ENGINES

from .checkpoint import Checkpoint, FileKey
from .encoder_graph import build_encoder
from .fitting import Fitting
from .flow_encoder_graph import build_flow_encoder
from .flow_step_graph import build_flow_step
from .lm_graph import ReadMatrix, Writing, build_branch, build_trunk
from .matrix import Floats, Matrix
from .plan import INT8_CACHES, Plan
from .reference.flow import start_noise
from .statistics import Statistics
from .tables import save_table
from .vocoder_graph import build_vocoder
from .writer import save_array

SPEAKER, TABLES = "speaker", "tables"
TABLE_FILES = {
    "embed_text.npy": "model.embed_tokens.weight",
    "embed_audio.npy": "model.audio_embed.weight",
}
NOISE, TOKENIZER = "flow_noise.npy", "tokenizer.json"


def part_names(source: Checkpoint) -> list[str]:
    """What a bundle of this checkpoint consists of, besides voices: in the order of writing."""
    return [*ENGINES, *([SPEAKER] if source.speaker else []), TABLES]


@dataclass(frozen=True, slots=True)
class _FileRows:
    """A matrix of the checkpoint, still on disk."""

    source: Checkpoint
    name: str
    count: Callable[[int], None]

    @property
    def shape(self) -> tuple[int, int]:
        outputs, inputs = self.source.shapes("lm")[self.name]
        return outputs, inputs

    def read(self, start: int, stop: int) -> Floats:
        rows = self.source.read_rows("lm", self.name, start, stop)
        self.count(rows.size)
        return rows


@dataclass(frozen=True, slots=True)
class PartWriter:
    """Writes the parts of one bundle into `folder`."""

    source: Checkpoint
    plan: Plan
    folder: Path
    noise_frames: int
    jobs: int  # threads that convert the matrices of the language model
    count: Callable[[int], None]  # is told how many weights were read, from any thread
    seen: Statistics | None = None  # what matrices are fitted to

    def write(self, part: str) -> list[Path]:
        """Write one part; returns its files."""
        if part == TABLES:
            return self._tables()
        path = self.folder / f"{part}.onnx"
        self._engine(part, path)
        data = path.with_suffix(".data")
        return [path, data] if data.exists() else [path]

    def _engine(self, name: str, path: Path) -> None:
        s, recipe = self.source, self.plan.recipe
        flow, (matrix, how) = self._reader("flow"), self._matrix_reader()
        build: dict[str, Callable[[], object]] = {
            "encoder": lambda: build_encoder(
                s.tokenizer_config, self._reader("tokenizer"), recipe, path
            ),
            "trunk": lambda: build_trunk(s.lm_config, matrix, recipe, path, how),
            "speech_branch": lambda: build_branch(s.lm_config, "audio", matrix, recipe, path, how),
            "text_branch": lambda: build_branch(s.lm_config, "text", matrix, recipe, path, how),
            "flow_encoder": lambda: build_flow_encoder(s.flow_config, flow, recipe, path),
            "flow_step": lambda: build_flow_step(s.flow_config, flow, recipe, path),
            "vocoder": lambda: build_vocoder(s.hift_config, self._fused, path, recipe),
            SPEAKER: lambda: self._copy(s.speaker, path),
        }
        build[name]()

    def _reader(self, key: FileKey) -> Callable[[str], Floats]:
        def read(name: str) -> Floats:
            value = self.source.read(key, name)
            self.count(value.size)
            return value

        return read

    def _matrix_reader(self) -> tuple[ReadMatrix, Writing]:
        """Tensors of the language model: matrices by rows, vectors at once; how to write them."""
        read, shapes = self._reader("lm"), self.source.shapes("lm")

        def matrix(name: str) -> Matrix:
            by_rows = len(shapes[name]) == 2
            return _FileRows(self.source, name, self.count) if by_rows else read(name)

        if self.seen is None:
            return matrix, Writing(jobs=self.jobs)
        fitting = Fitting(self.source, self.plan, self.seen, matrix)
        caches = fitting.cache_scales if self.plan.kv == INT8_CACHES else None
        return fitting, Writing(jobs=self.jobs, caches=caches)

    def _fused(self, name: str) -> Floats:
        value = self.source.fused(name)
        self.count(value.size)
        return value

    def _copy(self, file: Path | None, path: Path) -> None:
        assert file is not None, "a part that the checkpoint does not have"
        shutil.copyfile(file, path)

    def _tables(self) -> list[Path]:
        """Embeddings, the flow's start noise, the text tokenizer."""
        s, paths = self.source, [self.folder / NOISE, self.folder / TOKENIZER]
        noise = start_noise(s.flow_config.mel_bins, self.noise_frames).numpy()
        save_array(paths[0], noise.astype(np.float32, copy=False))
        shutil.copyfile(s.tokenizer_json, paths[1])
        kept = self.plan.of(TABLES)
        for file, name in TABLE_FILES.items():
            rows = _FileRows(s, name, self.count)
            paths += save_table(rows, kept[name].scheme, self.folder / file)
        return paths
