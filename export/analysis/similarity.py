"""How alike a sentence is, spoken and written, at every depth of the language model.

The same sentences are put to the reference twice, as user turns: their codes, and their text. At
each depth spoken and written rows are aligned by dynamic time warping; the mean cosine along the
path is the similarity. Two things are needed to read it:

- every pair of *different* sentences is aligned just so, for rows of a language model resemble each
  other whatever they mean, and the best path of any two sequences looks better than chance;
- the mean row of each modality, at that depth, is taken away for the centred cosine, because
  "this is speech" is the loudest thing a row says.

The contrast is the centred cosine of a sentence with itself, less that with the others. A sentence
counts as found when, of all written ones, its own is the most similar (centred).

Below the trunk's end there are three ways on: both through the text branch, both through the audio
branch, or each through its own. Where contrast falls inside the trunk, its last layers compute in
common what is no longer common, and the branches might split earlier. That is a hint, not a proof:
a checkpoint was trained with its split where it is, and its branches differ because of it.
The idea, layer-wise similarity along a warped path, is that of arXiv 2510.00499; the controls, the
contrast and the rule for the split are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.prompt import PromptBuilder
from antiphon.runtime.text import TextTokenizer

from ..checkpoint import Checkpoint
from .alignment import best_path, cosines, path_means, unit
from .recording import Estimate, ratio
from .states import AUDIO, TEXT, TRUNK, Depth, Floats, Passage, hidden_states

OWN = "own"  # spoken rows through the audio branch, written rows through the text branch
LEAST = 8  # sentences; with fewer there is nothing to tell apart


@dataclass(frozen=True, slots=True)
class Sentence:
    """Codes [n] of a recording and the text that is said in it."""

    name: str
    codes: NDArray[np.int64]
    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """What was found at one depth of one way through the model."""

    way: str  # TRUNK, TEXT, AUDIO or OWN
    layer: int
    cosine: Estimate  # of a sentence with itself
    cosine_others: float
    centred: Estimate
    centred_others: float
    contrast: Estimate
    found: Estimate  # share of sentences
    contrasts: Floats  # by sentence [N]


@dataclass(frozen=True, slots=True)
class Map:
    """Centred cosines [S, T] of one sentence at one depth, and the best path [P, 2]."""

    way: str
    layer: int
    cosines: Floats
    path: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Similarity:
    """The whole experiment."""

    sentences: tuple[str, ...]
    shared_layers: int
    levels: tuple[Level, ...]
    pieces: tuple[str, ...]  # of the mapped sentence's text, one for each written row
    mapped: Sentence
    maps: tuple[Map, ...]

    def along(self, *ways: str) -> list[Level]:
        """The levels of these ways, in the order of the layers."""
        return [level for level in self.levels if level.way in ways]

    @property
    def meets(self) -> bool:
        """Whether anywhere in the trunk a sentence is surely more like itself than the others."""
        return self.peak.contrast.low > 0

    @property
    def peak(self) -> Level:
        """Where the contrast is highest in the trunk."""
        return max(self.along(TRUNK), key=lambda level: level.contrast.value)

    @property
    def split(self) -> Level:
        """The last depth of the trunk whose contrast is not surely below the peak's.

        Surely: the 95 % interval of the difference, sentence by sentence, lies below zero.
        """
        peak = self.peak
        near = [x for x in self.along(TRUNK) if ratio(x.contrasts - peak.contrasts).high >= 0]
        return near[-1]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, in plain values."""
        return {
            "sentences": list(self.sentences),
            "shared_layers": self.shared_layers,
            "peak_layer": self.peak.layer if self.meets else None,
            "split_layer": self.split.layer if self.meets else None,
            "levels": [
                {k: v for k, v in asdict(level).items() if k != "contrasts"}
                for level in self.levels
            ],
        }


Note = Callable[[int, int], None]


def measure(
    source: Checkpoint, sentences: Sequence[Sentence], note: Note = lambda done, total: None
) -> Similarity:
    """Run all sentences through the reference, layer by layer; `note` hears of each depth.

    Raises ConfigError for fewer than `LEAST` sentences or two of the same text.
    """
    check_texts([s.text for s in sentences])
    encoder = TextTokenizer(source.tokenizer_json)
    spoken, written = _passages(source, encoder, sentences)
    ids = written[0].rows[written[0].first : written[0].stop, 0]
    c = source.lm_config
    total = c.num_shared_layers + 2 * c.num_modality_layers + 1
    levels, maps = [], []
    for done, (depth, speech, text) in enumerate(_ways(source, spoken, written)):
        level, matrix = _compare(depth, speech, text)
        levels.append(level)
        maps.append(Map(depth.block, depth.layer, matrix, best_path(matrix)))
        note(min(done + 1, total), total)
    return Similarity(
        sentences=tuple(s.name for s in sentences),
        shared_layers=c.num_shared_layers,
        levels=tuple(levels),
        pieces=tuple(encoder.decode([i]) for i in ids),
        mapped=sentences[0],
        maps=tuple(maps),
    )


def check_texts(texts: Sequence[str]) -> None:
    """Raise ConfigError for fewer than `LEAST` sentences or two of the same text."""
    different = len(set(texts))
    if different < max(LEAST, len(texts)):
        raise ConfigError(
            f"{len(texts)} recordings with {different} different texts; the similarity needs "
            f"{LEAST} or more, each of another text, to tell a sentence from the others"
        )


def _passages(
    source: Checkpoint, text: TextTokenizer, sentences: Sequence[Sentence]
) -> tuple[list[Passage], list[Passage]]:
    """Each sentence as a spoken and as a written user turn, after the same system turn."""
    prompt = PromptBuilder(source.special_ids, text.encode, text.encode_plain)
    system = prompt.system(source.prompts.spoken)
    heads = [np.concatenate((system, h)) for h in (prompt.user_open(), prompt.open_turn("user"))]
    spoken: list[Passage] = []
    written: list[Passage] = []
    for s in sentences:
        pieces = (prompt.speech_rows(s.codes), prompt.text(s.text))
        for head, rows, made in zip(heads, pieces, (spoken, written), strict=True):
            grid = np.concatenate((head, rows))
            made.append(Passage(grid, len(head), len(grid)))
    return spoken, written


def _ways(
    source: Checkpoint, spoken: list[Passage], written: list[Passage]
) -> Iterator[tuple[Depth, list[Floats], list[Floats]]]:
    """Spoken and written rows at each depth of each way."""
    texts: dict[int, list[Floats]] = {}  # of the text branch, until the audio branch gets there
    for depth, states in hidden_states(source, [*spoken, *written]):
        speech, text = states[: len(spoken)], states[len(spoken) :]
        yield depth, speech, text
        if depth.block == TEXT:
            texts[depth.layer] = text
        if depth.block == AUDIO:
            yield Depth(OWN, depth.layer), speech, texts.pop(depth.layer)


def _compare(depth: Depth, speech: list[Floats], text: list[Floats]) -> tuple[Level, Floats]:
    """The level, and the first sentence's map."""
    plain = _pairwise(speech, text)
    speech, text = ([x - np.concatenate(rows).mean(0) for x in rows] for rows in (speech, text))
    centred = _pairwise(speech, text)
    n = len(speech)
    itself, others = centred.diagonal(), (centred.sum(1) - centred.diagonal()) / (n - 1)
    contrasts = itself - others
    level = Level(
        way=depth.block,
        layer=depth.layer,
        cosine=ratio(plain.diagonal()),
        cosine_others=float((plain.sum() - plain.trace()) / (n * (n - 1))),
        centred=ratio(itself),
        centred_others=float(others.mean()),
        contrast=ratio(contrasts),
        found=ratio(centred.argmax(1) == np.arange(n)),
        contrasts=contrasts,
    )
    return level, cosines(speech[0], text[0])


def _pairwise(speech: list[Floats], text: list[Floats]) -> Floats:
    """Mean cosine along the best path of every spoken [n, H] with every written one: [N, N]."""
    lengths = np.array([len(rows) for rows in text])
    longest = int(lengths.max())
    padded = np.zeros((len(text), longest, text[0].shape[1]), np.float32)
    for to, rows in zip(padded, text, strict=True):
        to[: len(rows)] = unit(rows)
    means = []
    for rows in speech:
        similarity = np.swapaxes(padded @ unit(rows).T, 1, 2)  # [N, S, T]
        means.append(path_means(similarity, np.full(len(text), len(rows)), lengths))
    return np.stack(means)
