"""House style changes how facts are written, never the facts."""

from dataclasses import replace

import pytest

from clinical.style import Style
from clinical.unify import unify
from sandbox.generator import generate

TEXT = "1、右侧胫骨慢性骨髓炎；\n2、腰3/4、腰5/骶1椎间盘突出；\n3、左上肺结节，考虑肺癌。\n请结合临床，随诊。"
D = Style(
    numbering="({n})",
    separator=";\n",
    end=".",
    sides=("(L)", "(R)"),
    discs="{latin}{upper}-{latin_lower}{lower}",
    advice="建议：定期复查.",
    half_width=True,
)


def test_without_a_style_a_draft_stays_as_it_was() -> None:
    assert Style().apply(TEXT) == TEXT


def test_numbering_sides_levels_width_and_advice_follow_the_house() -> None:
    assert D.apply(TEXT) == "(1)(R)胫骨慢性骨髓炎;\n(2)L3-4、L5-S1椎间盘突出;\n(3)(L)上肺结节,考虑肺癌.\n建议:定期复查."


def test_a_house_without_numbers_writes_one_line() -> None:
    style = Style(numbering="", separator="；", advice="")
    assert style.apply(TEXT) == "右侧胫骨慢性骨髓炎；腰3/4、腰5/骶1椎间盘突出；左上肺结节，考虑肺癌。"


def test_traditional_script_follows_the_language() -> None:
    assert (
        Style(numbering="{han}、", separator="。\n").apply("1、脑干软化灶；\n2、右侧气胸。", "zh-Hant")
        == "一、腦幹軟化灶。\n二、右側氣胸。"
    )


def test_a_single_item_is_numbered_only_where_the_house_does() -> None:
    assert Style(numbering="{n}.").apply("右肺结节。") == "右肺结节。"
    assert Style(number_single=True).apply("右肺结节。") == "1、右肺结节。"


def test_an_item_of_several_statements_stays_one_item() -> None:
    assert (
        Style(numbering="{n}.").apply("1、两侧胸腔积液；心包积液；\n2、肝囊肿。")
        == "1.两侧胸腔积液；心包积液；\n2.肝囊肿。"
    )


def test_advice_is_added_only_where_the_house_always_gives_it() -> None:
    assert Style(advice="建议随访。").apply("右肺结节。") == "右肺结节。"
    assert Style(advice="建议随访。", advice_always=True).apply("右肺结节。") == "右肺结节。\n建议随访。"


def test_structures_with_a_side_in_their_name_keep_it() -> None:
    assert "左心房" in D.apply("1、左心房增大；\n2、右侧胸腔积液。")


@pytest.mark.parametrize("text", ["", "。", "\n\n", "1、", "请结合临床。", "a" * 5000, "1、\ud800x；\n2、y。"])
def test_odd_text_never_fails(text: str) -> None:
    for style in (Style(), D, replace(D, numbering="")):
        assert isinstance(style.apply(text), str)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"numbers": 1}, "no setting called numbers"),
        ({"numbering": "{x}"}, "numbering must be"),
        ({"sides": ["L"]}, "two words"),
    ],
)
def test_a_mistake_in_a_style_is_told(table: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Style.of(table)


def test_formatting_never_changes_what_generated_impressions_say() -> None:
    compared = 0
    for report in generate("balanced", scale=0.002, houses=(1,), seed=3):
        if report.impression and not report.noise:
            shown = D.apply(report.impression)
            sides = [unify(text).count(word) for text in (report.impression, shown) for word in ("左", "右")]
            assert sides[:2] == sides[2:]
            compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("raw", "one"),
    [
        ("(R)胫骨见小致密灶", "右侧胫骨见小致密灶"),
        ("范围约2.5cm×1.5cm", "范围约25×15mm"),
        ("大小约3.0*2.6CM", "大小约30×26mm"),
        ("大者约8 mm", "大者约8mm"),
        ("L4-5、L5-S1椎间盘突出", "腰4/5、腰5/骶1椎间盘突出"),
        ("第4/5腰椎、第5腰椎/第1骶椎", "腰4/5、腰5/骶1"),
        ("【甲状腺】形态对称", "形态对称"),
        ("顱腦未見異常", "颅脑未见异常"),
        ("T2高信号，T1WI、T2WI；S8段；Se5，Im186；CT值12HU", "T2高信号，T1WI、T2WI；S8段；Se5，Im186；CT值12HU"),
    ],
)
def test_findings_are_read_in_one_form(raw: str, one: str) -> None:
    assert unify(raw) == one


def test_the_training_house_already_writes_that_form() -> None:
    reports = list(generate("balanced", scale=0.002, houses=(1,)))
    assert all(unify(text) == text for report in reports for text in (report.findings, report.impression))
