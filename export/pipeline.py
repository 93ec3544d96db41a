"""A checkpoint folder becomes a bundle folder (design §3)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.enrol import Recording
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import ENGINES, EngineEntry, Manifest, TableEntry

from . import voices as recorded
from .budget import available_bytes, bundle_bytes, parity_bytes
from .checkpoint import Checkpoint
from .checkpoint_facts import check_text_tokenizer
from .engines import NOISE, SPEAKER, TABLES, TOKENIZER, PartWriter, part_names
from .fitting import statistics_for
from .journal import Journal, digest, identity
from .manifest_facts import VOICES, draft, voice_entries
from .parity import VOICE, Measures, measure, prompted
from .plan import PARTS, Plan, part_shapes
from .progress import Counter, Progress, Silence
from .reference.flow import NOISE_FRAMES
from .statistics import Statistics
from .tables import scales_path
from .writer import check_room, engine_entry, file_entry, new_bundle, save_manifest

PARITY = "parity"
_FOLDERS = {"lm": "MOSS-Speech"}  # of the checkpoint; the other files are the codec's
_VOICE_BYTES = 1 << 22  # of one voice, amply


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an export may be told."""

    weights: str | Path = "int8"  # a recipe or a scheme, see `antiphon.quant.recipe.load_recipe`
    statistics: Path | None = None  # of a calibration, where a rule of the recipe needs them
    kv: str = "float32"  # keys and values of the language model; int8 needs statistics
    target: str = "cpu"
    noise_frames: int = NOISE_FRAMES  # the longest prompt and reply, in frames of 20 ms
    voices: Mapping[str, Recording] = field(default_factory=dict)  # to be enrolled, default first
    jobs: int = 0  # threads that convert; 0: one for each processor we may use
    parity: bool = True  # measure the engines against the reference

    def __post_init__(self) -> None:
        if not 0 < self.noise_frames <= NOISE_FRAMES:
            raise ConfigError(f"noise_frames is {self.noise_frames}, expected 1 to {NOISE_FRAMES}")
        if self.jobs < 0:
            raise ConfigError(f"jobs is {self.jobs}, expected 0 or more")

    @property
    def threads(self) -> int:
        """How many threads convert."""
        return self.jobs or len(os.sched_getaffinity(0))


def export(
    checkpoint: Path, out: Path, *, progress: Progress | None = None, **settings: Any
) -> Manifest:
    """Write the checkpoint folder as the bundle folder `out`, whole or not at all.

    settings   fields of `Settings`
    An export that was stopped goes on with the parts that were finished, if they would become the
    same. Raises ConfigError, AudioError, BundleError, CapacityError or CorruptFile, naming the way
    out.
    """
    chosen, source = Settings(**settings), Checkpoint.open(checkpoint)
    plan, tell = Plan.make(source, chosen.weights, chosen.target, chosen.kv), progress or Silence()
    seen = statistics_for(plan, source, chosen.statistics)
    plain = draft(source, name=out.absolute().name, target=chosen.target, weights=plan.recipe.name)
    _check_copied(source)
    for note in recorded.check(source, chosen.voices, noise_frames=chosen.noise_frames):
        tell.note(note)
    stated = replace(plain, voices=voice_entries(source, chosen.voices))
    with new_bundle(out) as folder:
        work = _Export(source, plan, folder, chosen, tell, seen)
        work.parts()
        manifest = work.manifest(stated)
        save_manifest(manifest, folder)
        Bundle.open(folder, verify=False)  # what takes the place of `out` is known to open
    return manifest


def _check_copied(source: Checkpoint) -> None:
    """Refuse files that a bundle takes over as they are, before hours of work."""
    check_text_tokenizer(source.tokenizer_json, source.special_ids, source.lm_config)
    part_names(source)  # looks at the speaker encoder


class _Export:
    """The steps of one export; each leaves finished files in the folder."""

    def __init__(
        self,
        source: Checkpoint,
        plan: Plan,
        folder: Path,
        chosen: Settings,
        tell: Progress,
        seen: Statistics | None,
    ) -> None:
        self.source, self.plan, self.folder = source, plan, folder
        self.chosen, self.tell, self.seen = chosen, tell, seen
        self.names = part_names(source)
        self.step = 0
        self.voices: dict[str, Voice] = {}
        keys = {name: self._key(name) for name in self.names}
        keys[PARITY] = digest(keys, identity(source.directory / VOICES), _heard(chosen.voices))
        self.journal = Journal(folder, keys)

    def _key(self, part: str) -> str:
        """A digest of all that decides the bytes of a part."""
        key = PARTS[part][0] if part in PARTS else None
        folder = self.source.directory / _FOLDERS.get(str(key), "MOSS-Speech-Codec")
        rules = [
            (name, weight.scheme.name, weight.rule.method)
            for name, weight in self.plan.of(part).items()
        ]
        seen = identity(self.seen.folder) if self.seen else []
        return digest(part, identity(folder), rules, seen, self.plan.kv, self.chosen.noise_frames)

    def _begin(self, what: str) -> None:
        self.tell.step(what, self.step, len(self.names) + 1)
        self.step += 1

    def parts(self) -> None:
        """Write what is not finished yet, then the voices."""
        finished = [name for name in self.names if name in self.journal]
        if self.journal.outdated:
            self.tell.note(
                f"{', '.join(self.journal.outdated)} of an earlier export discarded: made with "
                "other settings, from another checkpoint, by another version, or damaged"
            )
        if finished:
            self.tell.note(f"going on after an earlier export; finished: {', '.join(finished)}")
        needed = bundle_bytes(self.source, self.plan, self.chosen.noise_frames)
        needed += _VOICE_BYTES * (len(self.source.voices) + len(self.chosen.voices))
        check_room(self.folder, needed - self.journal.nbytes)
        left = [name for name in self.names if name not in finished]
        writer = PartWriter(
            self.source,
            self.plan,
            self.folder,
            self.chosen.noise_frames,
            self.chosen.threads,
            Counter(self.tell, sum(self._size(name) for name in left)),
            self.seen,
        )
        self.step = len(finished)
        for name in left:
            self._begin(name)
            self.journal.finish(name, writer.write(name))
        self._write_voices()

    def _size(self, part: str) -> int:
        shapes = part_shapes(self.source, part) if part in PARTS else {}
        return sum(math.prod(shape) for shape in shapes.values())

    def _write_voices(self) -> None:
        enrolled = recorded.enrol(self.source, self.folder, self.chosen.voices)
        self.voices = enrolled | self.source.voices
        (self.folder / VOICES).mkdir()
        for name, voice in self.voices.items():
            np.savez(self.folder / VOICES / f"{name}.npz", allow_pickle=False, **asdict(voice))

    def manifest(self, stated: Manifest) -> Manifest:
        """Measure the engines and state it all."""
        files, parity = self.journal.files, self._parity()
        tables = {name: files[f"embed_{name}.npy"] for name in ("text", "audio")}
        scales = {n: files.get(scales_path(Path(e.file)).name) for n, e in tables.items()}
        return replace(
            stated,
            engines={
                name: self._engine(name, parity.get(name, {}))
                for name in self.names
                if name != TABLES
            },
            text_embeddings=TableEntry(rows=tables["text"], scales=scales["text"]),
            audio_embeddings=TableEntry(rows=tables["audio"], scales=scales["audio"]),
            tokenizer=files[TOKENIZER],
            noise=files[NOISE],
            voices={
                name: file_entry(self.folder / VOICES / f"{name}.npz", self.folder)
                for name in stated.voices
            },
        )

    def _engine(self, name: str, parity: Measures) -> EngineEntry:
        scheme = "fp32" if name == SPEAKER else self.plan.stated(name)
        return engine_entry(self.folder / f"{name}.onnx", self.journal.files, scheme, parity)

    def _parity(self) -> dict[str, Measures]:
        """Measure the engines that can be measured here; progress says which cannot, and why."""
        if not self.chosen.parity:
            self._begin("parity: not measured")
            return {}
        if PARITY in self.journal:
            self._begin(PARITY)
            return self.journal.parts[PARITY].measures
        voice, left_out = prompted(self.voices.values()), {}
        if voice is None:
            left_out = dict.fromkeys(VOICE, "no voice has a prompt")
        free = available_bytes()
        for name, needed in parity_bytes(self.source, self.plan).items():
            if free is not None and needed > free:
                left_out[name] = f"takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free"
        self._begin("; ".join([PARITY, *(f"not {n}: {why}" for n, why in left_out.items())]))
        engines = [name for name in ENGINES if name not in left_out]
        found = measure(self.source, self.folder, engines, voice)
        self.journal.finish(PARITY, measures=found)
        return found


def _heard(recordings: Mapping[str, Recording]) -> list[tuple[str, int, str]]:
    """What tells recordings apart."""
    return [
        (name, r.rate_hz, sha256(np.ascontiguousarray(r.pcm).data).hexdigest())
        for name, r in recordings.items()
    ]
