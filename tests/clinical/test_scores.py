"""Scores: defined for every text, full and core, words and characters, facts and what the radiologist changed."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jieba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge

import clinical
from clinical import distance, overlay
from clinical.core_text import core_statements
from clinical.facts import Reading
from clinical.score import SCORER_VERSION, Score, score, tokens

SIGNED = "1、右肺上叶实性结节，大小约5×4mm；\n2、左侧胸腔少量积液。\n请结合临床，随诊。"


def test_the_tokens_keep_levels_sizes_and_sequence_names_whole() -> None:
    assert tokens("腰4/5、 L5/S1 椎间盘") == ["腰4/5", "、", "L5/S1", "椎间盘"]
    for whole in ("5.4×4.7cm", "0.6cm", "T2WI", "腰4/5", "S8", "T11", "CAD-RADS 3", "50%", "未见", "双侧", "6 mm"):
        assert "".join(whole.split()) in tokens(f"所示{whole}，余正常"), whole


def test_full_and_half_width_score_alike() -> None:
    half = "1、右肺上叶实性结节,大小约5x4mm;\n2、左侧胸腔少量积液。\n请结合临床,随诊。"
    assert score(half, SIGNED).rl == score(SIGNED, SIGNED).rl


def test_an_empty_draft_scores_nothing_and_is_not_dropped() -> None:
    for empty in ("", " \n", "\u200b"):
        found = score(empty, SIGNED)
        assert (found.r1, found.r2, found.rl, found.char_rl, found.core_rl, found.fact_f1) == (0, 0, 0, 0, 0, 0)
    assert score(SIGNED, "").r1 == 0
    assert score("", "").r1 == 0


def test_identity_is_almost_one_and_verbatim() -> None:
    found = score(SIGNED, SIGNED)
    assert found.r1 == found.rl == pytest.approx(1, abs=1e-8)
    assert (found.edit_distance, found.verbatim, found.edit_kinds, found.fact_f1) == (0, True, (), 1.0)


def test_the_distance_is_told_apart_into_what_was_put_in_taken_out_and_written_over() -> None:
    found = score("左肺结节，必要时复查。", "右肺上叶结节。")
    assert (found.inserted, found.deleted, found.replaced, found.edit_distance) == (2, 6, 1, 9)
    assert (score("", "结节").inserted, score("结节", "").deleted) == (2, 2)


@given(st.text("ab1，", max_size=24), st.text("ab1，", max_size=24), st.sampled_from([1, 8, 1 << 22]))
def test_the_three_together_are_the_distance_however_the_table_is_halved(one: str, other: str, cells: int) -> None:
    rows = [list(range(len(other) + 1))]
    for at, character in enumerate(one, 1):
        row = [at]
        for column, against in enumerate(other, 1):
            row.append(min(rows[-1][column] + 1, row[-1] + 1, rows[-1][column - 1] + (character != against)))
        rows.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance, "_TRACED", cells)
        found = distance.edits(one, other)
    assert found.distance == distance.edit_distance(one, other) == rows[-1][-1]
    assert found.inserted - found.deleted == len(other) - len(one)
    assert min(found.inserted, found.deleted, found.replaced) >= 0


def test_swapping_draft_and_signed_swaps_precision_and_recall() -> None:
    there, back = score("右肺上叶结节。", SIGNED), score(SIGNED, "右肺上叶结节。")
    assert (there.r1_precision, there.r1_recall) == (back.r1_recall, back.r1_precision)
    assert there.r1 == back.r1


def test_the_bag_figure_sees_a_loop_that_rouge_1_does_not() -> None:
    looped = score("右肺上叶结节。" * 6, "右肺上叶结节。")
    assert looped.r1 == pytest.approx(1, abs=1e-8)
    assert looped.bag_r1 < 0.5


CORES = [
    ("胸部CT平扫示：\n1、右肺上叶结节；\n2、左侧胸腔少量积液。", ["右肺上叶结节", "左侧胸腔少量积液"]),
    ("印象：1. 右肺上叶结节，建议3个月后复查。\n2. 肝囊肿。", ["右肺上叶结节", "肝囊肿"]),
    (
        "【影像诊断】（1）右肺上叶结节，较前增大；（2）对比2023-01-05旧片，左侧胸腔积液较前减少。",
        ["右肺上叶结节", "左侧胸腔积液较前减少"],
    ),
    ("一、雙肺氣腫。二、與前片比較，大致同前。", ["双肺气肿"]),
    ("右肺上叶结节。余同前。请结合临床。", ["右肺上叶结节"]),
    ("右肺上叶结节新见，余大致相仿；胰头高密度影，必要时MR检查除外结石。", ["右肺上叶结节新见", "胰头高密度影"]),
    ("5.4×4.7cm 肿块", ["5.4×4.7cm肿块"]),
    (
        "Impression: 1. Right upper lobe nodule. 2. Unchanged compared with the previous CT.",
        ["Right upper lobe nodule"],
    ),
    ("请结合临床，随诊。", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "kept"), CORES)
def test_the_core_has_neither_title_nor_number_nor_advice_nor_comparison(text: str, kept: list[str]) -> None:
    assert list(core_statements(Reading(text))) == kept


def test_advice_and_list_numbers_are_not_in_the_core() -> None:
    found = score("右肺上叶实性结节，大小约5×4mm；\n左侧胸腔少量积液。", SIGNED)
    assert found.core_r1 == found.core_rl == pytest.approx(1, abs=1e-8)
    assert found.r1 < 1 - 1e-6


KINDS = [
    (("右肺", "左肺"), "side"),
    (("5×4mm", "9×4mm"), "size"),
    (("左侧胸腔少量积液", "左侧胸腔少量积液可能"), "certainty"),
    (("左侧胸腔少量积液", "左侧胸腔未见积液"), "polarity"),
    (("2、左侧胸腔少量积液。", ""), "added_finding"),
    (("随诊。", "随诊。\n3、肝囊肿。"), "removed_finding"),
    (("上叶", "下叶"), "level"),
    (("少量", "少许"), "style"),
]


@pytest.mark.parametrize(("change", "kind"), KINDS)
def test_what_the_radiologist_changed_has_a_name(change: tuple[str, str], kind: str) -> None:
    assert kind in score(SIGNED.replace(*change), SIGNED).edit_kinds


def test_another_numbering_is_style_and_another_order_beside_a_fix_is_both() -> None:
    assert score(SIGNED.replace("1、", "1.").replace("2、", "2."), SIGNED).edit_kinds == ("style",)
    there, here = "左侧胸腔积液；肝囊肿；右肺结节", "右肺结节；左侧胸腔积液；肝囊肿，约5mm"
    assert score(there, here).edit_kinds == ("order", "size")
    assert score("肝囊肿。肝囊肿。右肺结节。", "肝囊肿。右肺结节。").edit_kinds == ("removed_finding",)


def test_a_fact_that_agrees_but_for_a_detail_counts_in_part_and_a_grave_one_counts_more() -> None:
    whole, part, none = (
        score(draft, "右肺上叶结节，大小约5mm").fact_f1
        for draft in ("右肺上叶结节，大小约0.5cm", "左肺上叶结节", "肝囊肿")
    )
    assert (whole, none) == (1.0, 0.0)
    assert part is not None
    assert 0.5 < part < 1
    signed = "急性脑出血。右侧上颌窦囊肿。"
    grave, slight = score("急性脑出血。", signed), score("右侧上颌窦囊肿。", signed)
    assert grave.fact_f1 == slight.fact_f1
    assert (grave.fact_weighted_f1 or 0) > (slight.fact_weighted_f1 or 0)


def test_how_much_of_each_text_the_facts_rest_on_is_said() -> None:
    found = score("右肺结节。某某未知之语。", "右肺结节。请结合临床。")
    assert (found.draft_coverage, found.coverage) == (0.5, 1.0)


def test_the_published_profile_is_what_the_libraries_make_of_the_text_as_it_is(tmp_path: Path) -> None:
    plain = jieba.Tokenizer()
    plain.tmp_dir = str(tmp_path)  # or its cache file lands where any user could have put one
    texts = [
        SIGNED,
        "1、右肺上叶结节 , 大小 0.6cm。\n\n2、两肺未见异常！ ",
        "右肺中叶“结节”？”考虑……炎症。",
        "Ca\r\n\u3000T2WI高信号",
        "。 。\n",
    ]
    for draft in texts:
        for signed in texts:
            joined = [" ".join(plain.cut(text)) for text in (draft, signed)]
            (wanted,) = Rouge().get_scores(*joined)
            found = score(draft, signed, compat=True)
            assert (found.r1, found.r2, found.rl) == tuple(
                wanted[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")
            )
            assert found.char_rl == score(draft, signed).char_rl
    assert score("", SIGNED, compat=True).r1 == score(" \n", SIGNED, compat=True).rl == 0
    assert score(SIGNED, SIGNED, compat=True).scorer == f"compat-{SCORER_VERSION}"


def test_english_and_french_words_are_words_whatever_their_case_and_marks() -> None:
    assert tokens("No pleural effusion; 5 x 4 mm nodule, T2WI.", language="en") == [
        "no",
        "pleural",
        "effusion",
        "5×4mm",
        "nodule",
        "t2wi",
    ]
    assert tokens("Épanchement pleural à l'apex", language="fr") == ["épanchement", "pleural", "à", "l", "apex"]
    assert tokens("结节 nodule", language="en") == ["结", "节", "nodule"]
    assert score("no Effusion", "No effusion.", language="en").r1 == pytest.approx(1, abs=1e-8)


def test_traditional_glyphs_score_as_simplified_ones() -> None:
    assert score("右肺上葉結節", "右肺上叶结节", language="zh-Hant").rl == pytest.approx(1, abs=1e-8)


def test_a_lobe_of_the_other_side_is_a_side_fix() -> None:
    assert score("甲状腺左叶结节。", "甲状腺右叶结节。").edit_kinds == ("side",)
    assert score("腰4/5椎间盘突出。", "腰3/4椎间盘突出。").edit_kinds == ("level",)


def test_items_in_another_order_are_an_order_change_only() -> None:
    found = score("左侧胸腔积液；右肺结节", "右肺结节；左侧胸腔积液")
    assert found.edit_kinds == ("order",)
    assert found.reordered


@settings(max_examples=60)
@given(st.text(max_size=60), st.text(max_size=60), st.booleans(), st.sampled_from(["zh-Hans", "zh-Hant", "en", "fr"]))
def test_any_two_texts_have_a_score(draft: str, signed: str, compat: bool, language: str) -> None:
    found = score(draft, signed, compat=compat, language=language)
    assert isinstance(found, Score)
    assert all(0 <= value <= 1 for value in (found.r1, found.r2, found.rl, found.char_rl, found.edit_ratio))


def test_twenty_thousand_characters_are_scored_in_seconds() -> None:
    drawn = random.Random(3)
    long = ["".join(drawn.choices("左右肺肾肝上下叶结节囊肿，；。", k=20_000)) for _ in range(2)]
    started = time.process_time()
    assert score(long[0], long[1]).rl > 0
    assert time.process_time() - started < 12


@pytest.mark.parametrize(
    "text", ["。" * 3000, "\ud800\udc00\u202e\u0000", "１．①Ⅳ²", "🫁" * 500, "\n" * 2000, "1、" * 500]
)
def test_a_text_without_any_word_scores_nothing_against_a_signed_one_and_does_not_raise(text: str) -> None:
    for compat in (False, True):
        assert score(text, SIGNED, compat=compat).r2 < 0.1
        assert score(SIGNED, text, compat=compat).fact_f1 is None


_SCORED = """
import json, sys
from clinical.score import _CODE, SCORER_VERSION, score
found = score("左肺上叶缺血灶。", "左肺上叶腔梗结节甲乙丙灶。")
modules = {name.removeprefix("clinical.") + ".py" for name in sys.modules if name.startswith("clinical.")}
print(json.dumps([SCORER_VERSION, found.r1, found.r2, found.rl, found.char_rl, found.draft_coverage, sorted(modules - set(_CODE))]))
"""


def _scored_with(package: Path) -> list[Any]:
    command = [sys.executable, "-P", "-c", _SCORED]
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, cwd=package, capture_output=True, text=True, check=True, timeout=60)
    found: list[Any] = json.loads(done.stdout)
    return found


def test_another_vocabulary_of_the_checks_changes_no_rouge_but_the_version(tmp_path: Path) -> None:
    shipped = Path(clinical.__path__[0])
    shutil.copytree(shipped, tmp_path / "clinical", ignore=shutil.ignore_patterns("__pycache__"))
    before = _scored_with(tmp_path)
    with (tmp_path / "clinical" / "vocabulary" / "lesions.tsv").open("a", encoding="utf-8") as file:
        file.write("own_finding\t3\t\t\t甲乙丙灶|缺血灶\n")
    after = _scored_with(tmp_path)
    assert after[1:5] == before[1:5]
    assert after[0] != before[0]


def test_a_department_s_words_change_no_rouge_and_are_told_by_the_version() -> None:
    draft, signed = "右肺上叶小花影；左侧胸腔积液。", "右肺上叶结节；左侧胸腔少量积液。"
    before = score(draft, signed)
    after = score(draft, signed, words=overlay.read({"lesions.tsv": "nodule\t\t\t\t小花影\n"}))
    assert (after.r1, after.r2, after.rl, after.char_rl) == (before.r1, before.r2, before.rl, before.char_rl)
    assert (after.fact_f1 or 0) > (before.fact_f1 or 0)
    assert before.scorer == SCORER_VERSION
    assert after.scorer.startswith(f"{SCORER_VERSION}-")


def test_what_a_house_takes_for_the_same_agrees_in_its_facts() -> None:
    draft, signed = "右肺上叶磨玻璃影。", "右肺上叶渗出。"
    assert score(draft, signed).fact_f1 == 0
    found = score(draft, signed, words=overlay.read({"equivalents.tsv": "磨玻璃影\t渗出\n"}))
    assert (found.fact_f1 or 0) >= 0.9
    assert found.edit_kinds == ("style",)


def test_every_module_that_a_score_rests_on_is_in_its_version() -> None:
    *_, outside = _scored_with(Path(clinical.__path__[0]).parent)
    # cleaning for models, not for the matching copy: text.py holds both
    assert outside == ["deidentify.py", "names.py", "together.py"]
