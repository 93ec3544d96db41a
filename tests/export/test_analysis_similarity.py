import json
from dataclasses import replace

import numpy as np
import pytest
from lettered_checkpoint import LETTERS, make_lettered

from antiphon.export.analysis.recording import ratio
from antiphon.export.analysis.similarity import (
    OWN,
    Level,
    Sentence,
    Similarity,
    check_texts,
    measure,
)
from antiphon.export.analysis.states import AUDIO, TEXT, TRUNK
from antiphon.export.checkpoint import Checkpoint
from antiphon.runtime.errors import ConfigError


def sentences(count):
    """Random words; each letter is spoken as the code of its number, one to three times."""
    rng, made = np.random.default_rng(5), []
    for number in range(count):
        ids = rng.integers(0, len(LETTERS), rng.integers(6, 12))
        codes = np.repeat(ids, rng.integers(1, 4, len(ids)))
        made.append(Sentence(f"s{number}", codes, "".join(LETTERS[i] for i in ids)))
    return made


def found_in(folder, *, alike):
    return measure(Checkpoint.open(make_lettered(folder, alike=alike)), sentences(12))


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    return found_in(tmp_path_factory.mktemp("alike"), alike=True)


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    return found_in(tmp_path_factory.mktemp("strange"), alike=False)


def test_speech_embedded_as_text_is_the_same_sentence(alike):
    first = alike.levels[0]
    assert (first.way, first.layer) == (TRUNK, 0)
    assert first.cosine.value == pytest.approx(1, abs=1e-5)  # repeats are warped away
    assert first.found.value == 1
    assert first.contrast.low > 0.3
    assert first.cosine_others < 0.6


def test_speech_embedded_at_random_is_no_sentence(strange, alike):
    first = strange.levels[0]
    assert first.contrast.low < 0.05
    assert abs(first.contrast.value) < 0.1 * alike.levels[0].contrast.value
    assert first.found.value < 0.5


def test_every_way_is_walked_layer_by_layer(alike):
    assert [(x.way, x.layer) for x in alike.levels] == [
        (TRUNK, 0),
        (TRUNK, 1),
        (TRUNK, 2),
        (TEXT, 3),
        (AUDIO, 3),
        (OWN, 3),
    ]
    own, text = alike.levels[-1], alike.levels[3]
    assert own.contrast.value < text.contrast.value  # two random branches have nothing in common


def test_the_map_is_of_the_first_sentence(alike):
    first = sentences(1)[0]
    assert alike.mapped.text == first.text
    assert "".join(alike.pieces) == first.text
    for one in alike.maps:
        assert one.cosines.shape == (len(first.codes), len(first.text))
        assert one.path[0].tolist() == [0, 0]
        assert one.path[-1].tolist() == [len(first.codes) - 1, len(first.text) - 1]


def test_two_runs_agree_and_fit_into_json(alike, tmp_path):
    again = found_in(tmp_path, alike=True).as_dict()
    assert json.loads(json.dumps(again, allow_nan=False)) == alike.as_dict()


def test_too_few_or_equal_sentences_are_refused():
    with pytest.raises(ConfigError, match="7 recordings with 7 different texts"):
        check_texts([f"text {i}" for i in range(7)])
    with pytest.raises(ConfigError, match="9 recordings with 8 different texts"):
        check_texts([*(f"text {i}" for i in range(8)), "text 0"])


def levels(*curves):
    """Trunk levels whose sentences have these contrasts."""
    zero = ratio([0.0])
    level = Level(TRUNK, 0, zero, 0.0, zero, 0.0, zero, zero, np.zeros(1))
    return tuple(
        replace(level, layer=i, contrast=ratio(c), contrasts=np.array(c))
        for i, c in enumerate(curves)
    )


def test_branches_should_split_where_contrast_begins_to_fall():
    rising = [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5], [0.5, 0.6, 0.7]]
    nearly, falling = [0.6, 0.6, 0.6], [0.3, 0.4, 0.5]

    def experiment(*curves):
        return Similarity(("a", "b", "c"), len(curves) - 1, levels(*curves), (), None, ())

    assert experiment(*rising).split.layer == 2
    assert experiment(*rising).meets
    assert not experiment([-0.3, 0.1, 0.3], [-0.2, 0.0, 0.1]).meets
    assert (experiment(*rising, falling).peak.layer, experiment(*rising, falling).split.layer) == (
        2,
        2,
    )
    assert experiment(*rising, nearly, falling).split.layer == 3  # layer 3 is not surely lower
