"""What compares recipes compares like with like, and says by how much one is better."""

import json

import numpy as np
import pytest

from antiphon.export.proof.heads import RowScore
from antiphon.quant.recipe import load_recipe
from benchmarks import quality, quality_bundles
from benchmarks.quality_bundles import TWINS
from benchmarks.quality_heads import asked, better, scores

LAYER = "trunk/model.shared_block.layers.{}.{}.weight"
MATRICES = [f"self_attn.{m}_proj" for m in "qkvo"] + [f"mlp.{m}_proj" for m in ("gate", "up")]
NAMES = [LAYER.format(i, m) for i in (0, 1) for m in (*MATRICES, "mlp.down_proj")]
NAMES += ["speech_branch/audio_lm_head.weight", "tables/model.embed_tokens.weight"]
NAMES += ["vocoder/conv_pre.weight", "encoder/encoder.layers.0.fc1.weight"]


def rows(*kls):
    """Dialogues of the speech head with these losses, and one of the text head."""
    speech = [[RowScore(kl, kl < 1, 0.5, 0.5) for kl in dialogue] for dialogue in kls]
    return {"speech": speech, "text": [[RowScore(1.0, True, 0, 0)]]}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_schemes_of_its_recipe_and_other_methods(name, tmp_path):
    twin = load_recipe(quality_bundles._written(tmp_path, name))
    of = load_recipe(TWINS[name].of)
    twin.check(NAMES)
    assert [twin.scheme_of(n) for n in NAMES] == [of.scheme_of(n) for n in NAMES]
    four = [n for n in NAMES if of.scheme_of(n).bits == 4]
    methods = {(twin.rule_of(n).method, "qkgu".find(n.split(".")[-2][0]) >= 0) for n in four}
    assert methods == {(TWINS[name].norm_fed, True), (TWINS[name].others, False)}
    assert all(twin.rule_of(n).method == of.rule_of(n).method for n in NAMES if n not in four)


def test_a_loss_half_as_large_is_half_less():
    plain = rows(*([float(i % 7 + 1), 2.0] for i in range(40)))
    mine = rows(*([float(i % 7 + 1) / 2, 1.0] for i in range(40)))
    found = better(mine, plain)
    assert found["speech"] == pytest.approx({"kl_less": 0.5, "low": 0.5, "high": 0.5})
    assert found["text"]["kl_less"] == 0
    noisy = better(rows(*np.random.default_rng(0).random((40, 3)).tolist()), plain)["speech"]
    assert noisy["low"] < noisy["kl_less"] < noisy["high"]


def test_rows_count_by_head():
    found = scores(rows([0.0, 2.0], [0.5, 1.5]))
    assert found["speech"]["rows"] == 4
    assert found["speech"]["kl"]["mean"] == pytest.approx(1)
    assert found["speech"]["agreement"]["mean"] == pytest.approx(0.5)
    assert found["text"]["rows"] == 1


def test_answers_are_paired_with_those_of_the_reference(tmp_path):
    for name, right in (("fp32", [1, 1, 1, 0]), ("int4", [1, 0, 1, 0])):
        result = {key: {} for key in ("exact", "exact_apart_from_development")}
        result |= {"questions": 4, "speech_to_text_exact": {}}
        result["right"] = {str(i): bool(r) for i, r in enumerate(right)}
        (tmp_path / f"held-out-{name}.json").write_text(json.dumps(result))
    found = quality.answers(tmp_path)
    assert {name: f["against"]["points"] for name, f in found.items()} == {"fp32": 0, "int4": -25}


def test_only_questions_that_training_never_looked_at_are_asked(tmp_path):
    folder = tmp_path / "data" / "eval"
    folder.mkdir(parents=True)
    lines = []
    for i in range(9):
        (folder / f"{i}.wav").write_bytes(b"")
        line = {"file": f"{i}.wav", "text": "?", "meaning": "m", "voice": "v", "rate": 16000}
        lines.append(json.dumps(line | {"samples": 1}))
    (folder / "index.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.quality_heads.read", lambda u, rate: np.zeros(1, np.float32))
        assert [q.name for q in asked(tmp_path, 3)] == ["1", "4", "7"]
