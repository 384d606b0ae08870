"""How much of a text the vocabulary reads, and the words that it lacks: counted, and nobody's name among them."""

from clinical import overlay
from clinical.case import System
from clinical.coverage import read, system_of
from clinical.facts import Reading

TEXT = "右肺上叶见结节。两肺见小花样磨砂影。心影不大。请结合临床。"


def test_statements_are_counted_without_advice_and_the_words_of_unread_ones_are_named() -> None:
    found = read(TEXT)
    assert (found.statements, found.read, found.unknown) == (3, 2, {"小花样", "磨砂"})
    assert found.read / found.statements == Reading(TEXT).coverage


def test_a_word_that_the_department_has_added_is_unknown_no_more() -> None:
    found = read(TEXT, words=overlay.read({"lesions.tsv": "nodule\t\t\t\t磨砂影\n"}))
    assert (found.read, found.unknown) == (3, frozenset())


def test_numbers_single_characters_and_what_was_de_identified_are_no_words() -> None:
    assert read("姓名：欧阳小明 住院号：12345678 甲乙丙 3.5。").unknown.isdisjoint({"欧阳", "小明", "12345678", "甲"})


def test_a_report_belongs_to_the_system_whose_structures_it_names_most() -> None:
    assert system_of([read("肝内见囊肿。脾大。双肺清晰。"), read("肝囊肿。")]) is System.ABDOMEN
    assert system_of([read("右膝关节积液。腰4/5椎间盘突出。"), read("")]) is System.MUSCULOSKELETAL
    assert system_of([read("未见异常。")]) is None


def test_foreign_words_are_cut_at_blanks() -> None:
    assert read("There is a frobnicated blorbitude.", language="en").unknown >= {"frobnicated", "blorbitude"}
