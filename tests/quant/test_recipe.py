"""Recipes: the first rule that matches wins, and rules that cannot be meant are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.quant.recipe import Recipe, Rule, load_recipe, plain, rules_of, shipped, unquantized
from antiphon.quant.schemes import (
    FP8,
    FP16,
    FP32,
    INT4_B32,
    INT4_B128,
    INT8,
    INT8_ROW,
    SCHEMES,
    QuantError,
)

UP = "trunk/model.shared_block.layers.0.mlp.up_proj.weight"
DOWN = "trunk/model.shared_block.layers.31.mlp.down_proj.weight"
HEAD = "speech_branch/audio_lm_head.weight"
FC = "encoder/encoder.layers.0.fc1.weight"
CONV = "vocoder/conv_pre.weight"
TABLE = "tables/model.embed_tokens.weight"
VALUE = "trunk/model.shared_block.layers.3.self_attn.v_proj.weight"
BRANCHES = [f"{b}_branch/model.{b}_block.layers.0.mlp.up_proj.weight" for b in ("speech", "text")]
NAMES = [UP, DOWN, VALUE, HEAD, FC, CONV, TABLE, *BRANCHES]


def recipe(*rules):
    return Recipe("mine", tuple(Rule(match, scheme) for match, scheme in rules))


def test_the_first_match_wins():
    mine = recipe(("*.down_proj.weight", INT8), ("trunk/*", INT4_B32), ("*", FP16))
    assert [mine.scheme_of(name) for name in (DOWN, UP, FC)] == [INT8, INT4_B32, FP16]


@given(names=st.lists(st.sampled_from(NAMES)), count=st.integers(1, 5))
def test_a_rule_at_the_end_changes_nothing_for_what_is_covered(names, count):
    mine = recipe(*[(name, SCHEMES["int8"]) for name in NAMES[:count]], ("*", FP32))
    longer = Recipe("longer", (*mine.rules, Rule("*", INT4_B32)))
    assert [mine.scheme_of(n) for n in names] == [longer.scheme_of(n) for n in names]


@pytest.mark.parametrize("pattern", ["TRUNK/*", "trunk/*.up_proj", "runk/*", "trunk/[!m]*"])
def test_a_pattern_means_the_whole_name_and_its_case(pattern):
    assert not Rule(pattern, INT8).matches(UP)
    assert Rule("trunk/model.*.[0-9].mlp.??_proj.weight", INT8).matches(UP)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("trunk/*", INT8)], r"mine: no rule for speech_branch/audio_lm_head\.weight; end with"),
        (
            [("*.q_poj.*", INT8), ("*", INT8)],
            r"'\*\.q_poj\.\*' matches no weight of .*; the nearest is trunk",
        ),
        (
            [("trunk/*", INT8), ("*", FP16), ("*.down_proj.weight", INT4_B32)],
            r"'\*\.down_proj\.weight' never applies, because 'trunk/\*' before it",
        ),
        ([("*", INT8), ("*", INT8)], r"'\*' never applies, because '\*' before it"),
    ],
)
def test_what_cannot_be_meant_is_refused(rules, message):
    with pytest.raises(QuantError, match=message):
        recipe(*rules).check(NAMES)


def test_what_says_something_everywhere_passes():
    recipe(("*_lm_head.weight", INT8), ("trunk/*", INT4_B32), ("*", FP16)).check(NAMES)


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_hold_for_every_weight(name):
    found = load_recipe(name)
    assert found.name == name
    found.check(NAMES)


def test_the_shipped_recipes_are_these():
    assert shipped() == ["fp16", "fp32", "fp8", "int4", "int4-quality", "int8"]


def test_four_bits_are_for_the_layers_of_the_language_model():
    found = load_recipe("int4")
    kept = {name: found.scheme_of(name).bits for name in NAMES}
    assert {n for n, bits in kept.items() if bits == 4} == {UP, DOWN, *BRANCHES}
    assert found.scheme_of(HEAD) == found.scheme_of(FC) == found.scheme_of(VALUE) == INT8
    assert found.rule_of(UP).method == "mse"
    assert found.scheme_of(TABLE) == INT8_ROW
    assert found.scheme_of(CONV) == FP16


def test_quality_is_int4_with_other_methods_and_few_other_schemes():
    plain, better = load_recipe("int4"), load_recipe("int4-quality")
    assert {better.rule_of(name).method for name in BRANCHES} == {"awq+gptq"}
    assert better.rule_of(DOWN).method == "gptq"
    assert better.scheme_of(UP) == INT8  # the first layer
    for name in (VALUE, HEAD, FC, CONV, TABLE):
        assert better.rule_of(name).scheme == plain.rule_of(name).scheme


def test_fp8_is_for_the_language_model():
    found = load_recipe("fp8")
    kept = {name: found.scheme_of(name) for name in NAMES}
    assert {n for n, scheme in kept.items() if scheme == FP8} == {UP, DOWN, VALUE, HEAD, *BRANCHES}
    assert {kept[n] for n in (FC, CONV, TABLE)} == {FP16}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_stands_for_the_recipe_of_its_width(name):
    found = load_recipe(name)
    found.check(NAMES)
    assert found.name == name
    assert found.scheme_of(UP) == SCHEMES[name]
    assert found.scheme_of(HEAD).bits == max(8, SCHEMES[name].bits)
    assert plain(SCHEMES[name]).rules == found.rules or name in shipped()


def test_the_rules_of_an_engine_take_names_of_the_checkpoint():
    rule_of = rules_of("speech_branch", INT4_B128)
    assert rule_of("audio_lm_head.weight").scheme == INT8
    assert rule_of("model.audio_block.layers.0.mlp.up_proj.weight").scheme == INT4_B128
    assert rules_of("vocoder", recipe(("vocoder/conv*", FP32)))("conv_pre.weight").scheme == FP32


def test_where_no_kernel_takes_codes_floats_are_kept():
    assert [unquantized(s) for s in (INT8, INT4_B32, FP16, FP32)] == [FP16, FP16, FP16, FP32]


def test_a_file_is_read(tmp_path):
    path = tmp_path / "mein Rezept é.toml"
    path.write_text(
        '[[rules]]\nmatch = "trunk/*"\nscheme = "int4_b32"\nmethod = "mse"\n'
        '[[rules]]\nmatch = "*" # the rest\nscheme = "fp16"\n'
    )
    for source in (path, str(path)):
        found = load_recipe(source)
        assert found.name == "mein Rezept é"
        assert found.rules == (Rule("trunk/*", INT4_B32, "mse"), Rule("*", FP16))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = ", "not TOML"),
        ("", r"expected \[\[rules\]\] and nothing else"),
        ("rules = []", r"expected \[\[rules\]\]"),
        ('title = "x"\n[[rules]]\nmatch = "*"\nscheme = "int8"', "nothing else, got title"),
        ("rules = [3]", "rule 1 is 3, expected texts for match and scheme"),
        ('[[rules]]\nmatch = "*"', "rule 1 is .* expected texts"),
        ('[[rules]]\nmatch = "*"\nscheme = "int8"\nblock = 32', "rule 1 is .* expected texts"),
        ('[[rules]]\nmatch = "*"\nscheme = 8', "rule 1 is .* expected texts"),
        (
            '[[rules]]\nmatch = "*"\nscheme = "int5"',
            "rule 1: unknown scheme 'int5'; the nearest is int8",
        ),
        (
            '[[rules]]\nmatch = "*"\nscheme = "int8"\nmethod = "magic"',
            r"rule 1: rule '\*': unknown method 'magic'; known: rtn, mse",
        ),
        ("# " + "x" * 70_000, "more than 65536 bytes"),
        (b"\xff", "not TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_defect(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(QuantError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_what_is_neither_file_nor_recipe_nor_scheme_is_answered_with_all_three(tmp_path):
    with pytest.raises(
        QuantError, match=r"unknown 'q4_k'; .*; choose a recipe \(fp16, .*\(fp32, .*"
    ):
        load_recipe("q4_k")
    with pytest.raises(QuantError, match="No such file"):
        load_recipe(tmp_path / "absent.toml")
