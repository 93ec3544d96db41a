"""A recipe applied to a checkpoint: what fits is stated, what does not is refused in time."""

import pytest
from tiny_checkpoint import make_checkpoint

from antiphon.export import engines as engine_parts
from antiphon.export.checkpoint import Checkpoint
from antiphon.export.plan import PARTS, Plan
from antiphon.quant.recipe import Recipe, Rule, shipped
from antiphon.quant.schemes import SCHEMES
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import ENGINES


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("plan")))


def written(path, *rules):
    """A recipe file; a rule is a pattern, a scheme and maybe a method."""
    keys = ("match", "scheme", "method")
    texts = ([f'{k} = "{v}"' for k, v in zip(keys, rule, strict=False)] for rule in rules)
    path.write_text("\n".join("[[rules]]\n" + "\n".join(lines) for lines in texts))
    return path


@pytest.mark.parametrize("name", [*shipped(), *SCHEMES])
def test_every_recipe_covers_every_weight(name, source):
    if name in ("int4", "int4-quality", "int4_b64", "int4_b128"):
        pytest.skip("such blocks do not divide the small sizes")
    plan = Plan.make(source, name, "cuda" if name == "fp8" else "cpu")
    assert {weight.partition("/")[0] for weight in plan.weights} == set(PARTS)
    assert all(plan.stated(part) for part in PARTS)


def test_weights_are_named_as_in_the_checkpoint(source):
    plan = Plan.make(source, "int8", "cpu")
    trunk = plan.of("trunk")
    assert len(trunk) == 2 * 7
    up = trunk["model.shared_block.layers.1.mlp.up_proj.weight"]
    assert (up.kind, up.scheme.name, up.shape) == ("matrix", "int8", (96, 64))
    assert "conv_pre.weight" in plan.of("vocoder")
    assert "encoder.codebook.weight" not in plan.of("encoder")
    table = plan.weights["tables/model.embed_tokens.weight"]
    assert (table.kind, table.scheme.name) == ("table", "fp16")


def test_an_engine_states_its_schemes_the_largest_share_first(source, tmp_path):
    path = written(
        tmp_path / "mine.toml",
        ("trunk/*.mlp.*", "int4_b32"),
        ("trunk/*.layers.0.self_attn.q_proj.weight", "fp16"),
        ("tables/*", "int8"),
        ("*", "int8_row"),
    )
    plan = Plan.make(source, path, "cpu")
    assert plan.stated("trunk") == "int4_b32+int8_row+fp16"
    assert plan.stated("vocoder") == "fp16"
    assert plan.stated("tables") == "int8_row"
    assert plan.stated("flow_encoder") == "int8_row"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [("encoder/encoder.conv1.weight", "int4_b32"), ("*", "int8")],
            r"\[64, 80, 3\] cannot be int4_b32: blocks of 32 do not divide 240 inputs; .* is int8",
        ),
        (
            [("tables/*", "int4_b32"), ("*", "int8")],
            r"embed_tokens\.weight .* cannot be int4_b32: tables .* is int8_row",
        ),
        ([("trunk/*", "int8")], "no rule for encoder/"),
        ([("trunk/*", "int8"), ("trunk/*.o_proj.weight", "fp16"), ("*", "int8")], "never applies"),
        (
            [("turnk/*", "int8"), ("*", "int8")],
            r"'turnk/\*' matches no weight of this model; the nearest is trunk/",
        ),
        (
            [("*.linear_q.weight", "fp16"), ("*", "int8")],
            r"linear_q\.weight as fp16 \(rtn\), .*linear_k\.weight as int8 \(rtn\): one matrix in",
        ),
        (
            [("flow_step/*.mid_blocks.0.0.mlp.1.weight", "int8", "mse"), ("*", "int8")],
            r"as int8 \(rtn\), .*mid_blocks\.0\.0\.mlp\.1\.weight as int8 \(mse\): one matrix in",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(rules, message, source, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Plan.make(source, written(tmp_path / "bad.toml", *rules), "cpu")


def test_a_scheme_that_the_target_cannot_run_is_refused(source, tmp_path):
    path = written(tmp_path / "mine.toml", ("trunk/*", "fp8"), ("*", "int8"))
    with pytest.raises(ConfigError, match=r"cannot run; int8 is the nearest .* target cuda"):
        Plan.make(source, path, "cpu")


def test_the_nearest_scheme_keeps_as_many_bits(source, tmp_path):
    path = written(tmp_path / "mine.toml", ("trunk/*.down_proj.weight", "int4_b64"), ("*", "int8"))
    with pytest.raises(ConfigError, match=r"\[64, 96\] cannot be int4_b64: .* is int4_b32"):
        Plan.make(source, path, "cpu")


def test_builders_ask_for_no_other_weight_than_the_plan_has(source, tmp_path, monkeypatch):
    """A weight that a builder stores by a rule is one that was checked, and the other way round."""
    plan, asked = Plan.make(source, "int8", "cpu"), set()
    rule_of = Recipe.rule_of

    def recorded(self, name):
        asked.add(name)
        return rule_of(self, name)

    monkeypatch.setattr(Recipe, "rule_of", recorded)
    writer = engine_parts.PartWriter(source, plan, tmp_path, 10, 1, lambda count: None)
    for engine in ENGINES:
        writer.write(engine)
    first_of_joined = {"k": "q", "v": "q"}
    missing = {n for n in plan.weights if not n.startswith("tables/")} - asked
    for name in missing:  # of matrices kept as one, the first is asked about
        stem, _, letter = name.removesuffix(".weight").rpartition("_")
        partner = f"{stem}_{first_of_joined.get(letter, letter)}.weight"
        joined = name.endswith(".0.mlp.1.weight") or name.endswith("encoder.embed.out.0.weight")
        assert joined or partner in asked - {name}, name
    assert asked <= set(plan.weights)


def test_bytes_on_disk_are_counted_with_scales(source):
    plan = Plan.make(source, "int8", "cpu")
    q = plan.weights["trunk/model.shared_block.layers.0.self_attn.q_proj.weight"]
    assert q.nbytes == 64 * 64 + 4 * 64  # one block of 64 inputs
    assert plan.weights["tables/model.audio_embed.weight"].nbytes == 2 * 48 * 64
    assert Rule("*", SCHEMES["int8"]).method == "rtn"
