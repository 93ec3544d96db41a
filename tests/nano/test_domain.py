"""The closed dialogue: complete, consistent, right, and honestly split into train and held out."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from nano.domain import (
    FALLBACK_ID,
    FALLBACK_REPLY,
    MEANINGS,
    OUT_OF_DOMAIN_HELD_OUT,
    OUT_OF_DOMAIN_TRAIN,
    Meaning,
    all_replies,
)

# Written out here on purpose: the test must not share the tables it checks.
VALUES = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
}
WEEK = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
YEAR = [
    *["January", "February", "March", "April", "May", "June"],
    *["July", "August", "September", "October", "November", "December"],
]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def normalized(text: str) -> str:
    return " ".join(words(text))


def of_family(family: str) -> list[Meaning]:
    return [meaning for meaning in MEANINGS if meaning.family == family]


def all_texts() -> list[str]:
    asked = [text for m in MEANINGS for text in (*m.train, *m.held_out)]
    return [*asked, *all_replies(), *OUT_OF_DOMAIN_TRAIN, *OUT_OF_DOMAIN_HELD_OUT]


def test_ids_are_unique_and_there_are_enough() -> None:
    ids = [meaning.id for meaning in MEANINGS]
    assert len(set(ids)) == len(ids) >= 300
    assert FALLBACK_ID not in ids
    assert all(re.fullmatch(r"[a-z_]+", name) for name in ids), "ids are used as file names"


def test_every_meaning_is_trained_and_held_out() -> None:
    for meaning in MEANINGS:
        assert 3 <= len(meaning.train) <= 12, meaning.id
        assert len(meaning.held_out) >= 1, meaning.id


def test_every_question_has_one_meaning() -> None:
    owner: dict[str, str] = {}
    for meaning in MEANINGS:
        for text in (*meaning.train, *meaning.held_out):
            assert owner.setdefault(normalized(text), meaning.id) == meaning.id, text
    for text in (*OUT_OF_DOMAIN_TRAIN, *OUT_OF_DOMAIN_HELD_OUT):
        assert normalized(text) not in owner, text


def test_no_held_out_phrasing_is_trained() -> None:
    trained = {normalized(text) for m in MEANINGS for text in m.train}
    held_out = {normalized(text) for m in MEANINGS for text in m.held_out}
    assert not trained & held_out
    out_train = {normalized(text) for text in OUT_OF_DOMAIN_TRAIN}
    assert not out_train & {normalized(text) for text in OUT_OF_DOMAIN_HELD_OUT}


def test_words_of_held_out_phrasings_are_trained() -> None:
    trained = {word for m in MEANINGS for text in m.train for word in words(text)}
    for meaning in MEANINGS:
        for text in meaning.held_out:
            assert set(words(text)) <= trained, (text, set(words(text)) - trained)


@pytest.mark.parametrize(
    ("family", "sign", "pairs"), [("add", 1, 11 * 11), ("subtract", -1, 11 * 12 // 2)]
)
def test_arithmetic_is_right_and_complete(family: str, sign: int, pairs: int) -> None:
    seen = set()
    for meaning in of_family(family):
        first, operator, second, verb, result = words(meaning.reply)
        assert (operator, verb) == ("plus" if sign == 1 else "minus", "is")
        a, b = VALUES[first], VALUES[second]
        assert VALUES[result] == a + sign * b, meaning.reply
        assert meaning.id == f"{family}_{first}_{second}"
        seen.add((a, b))
    assert len(seen) == len(of_family(family)) == pairs


def test_arithmetic_questions_name_the_operands_in_order() -> None:
    for meaning in of_family("add") + of_family("subtract"):
        _, first, second = meaning.id.split("_")
        for text in (*meaning.train, *meaning.held_out):
            asked = [word for word in words(text) if word in VALUES]
            turned = meaning.family == "subtract" and "from" in words(text)
            assert asked == ([second, first] if turned else [first, second]), text


@pytest.mark.parametrize(("noun", "circle"), [("day", WEEK), ("month", YEAR)])
def test_circles_of_names(noun: str, circle: list[str]) -> None:
    for relation, step in (("after", 1), ("before", -1)):
        meanings = of_family(f"{noun}_{relation}")
        assert len(meanings) == len(circle)
        for meaning in meanings:
            given, answer = (circle.index(w) for w in re.findall("[A-Z][a-z]+", meaning.reply[3:]))
            assert answer == (given + step) % len(circle), meaning.reply


@pytest.mark.parametrize(("relation", "step"), [("after", 1), ("before", -1)])
def test_neighbouring_numbers(relation: str, step: int) -> None:
    meanings = of_family(f"number_{relation}")
    assert len(meanings) == 20
    for meaning in meanings:
        given, answer = (VALUES[word] for word in words(meaning.reply) if word in VALUES)
        assert answer == given + step, meaning.reply


def test_opposites_are_mutual() -> None:
    pairs = {words(m.reply)[3]: words(m.reply)[-1] for m in of_family("opposite")}
    assert len(pairs) == 24
    assert all(pairs[other] == word for word, other in pairs.items())


def test_counting_counts() -> None:
    for meaning in of_family("count"):
        top = VALUES[meaning.id.removeprefix("count_")]
        assert [VALUES[word] for word in words(meaning.reply)] == list(range(1, top + 1))


def test_replies_are_sentences_and_repeat_what_was_asked() -> None:
    for meaning in MEANINGS:
        assert re.fullmatch(r"[A-Z][A-Za-z, ]*[.?]", meaning.reply), meaning.reply
        if meaning.family not in ("single", "count"):
            operands = meaning.id.removeprefix(meaning.family + "_").split("_")
            assert set(operands) - {"a", "an"} <= set(words(meaning.reply)), meaning.reply


def test_all_replies_are_unique_and_hold_the_fallback() -> None:
    replies = all_replies()
    assert len(set(replies)) == len(replies)
    assert set(replies) == {meaning.reply for meaning in MEANINGS} | {FALLBACK_REPLY}
    assert all_replies() == replies


def test_texts_are_plain_spoken_words() -> None:
    for text in all_texts():
        assert re.fullmatch(r"[A-Z][A-Za-z, ]*[.?]", text), text
        assert "  " not in text, text


def test_out_of_domain_is_large_and_diverse() -> None:
    assert len(OUT_OF_DOMAIN_HELD_OUT) == 25
    everything = [*OUT_OF_DOMAIN_TRAIN, *OUT_OF_DOMAIN_HELD_OUT]
    assert len(everything) >= 150
    assert len({normalized(text) for text in everything}) == len(everything)
    openings = Counter(" ".join(words(text)[:2]) for text in everything)
    assert openings.most_common(1)[0][1] <= len(everything) // 10
