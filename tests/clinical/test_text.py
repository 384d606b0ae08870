"""Matching copy, model's copy, sections, sentences, and who is taken out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical.text import NoBorder, clean, deidentify, findings_hash, normalise, sentences, split_sections

SAME = [
    ("traditional glyphs", "雙側胸腔積液，竈影", "双侧胸腔积液，灶影"),
    ("full and half width", "大小约５×４ｍｍ；（Ｓｅ５）", "大小约5×4mm;(Se5)"),
    ("all signs of multiplication", "5x4mm 5X4mm 5*4mm 5×4mm", "5×4mm 5×4mm 5×4mm 5×4mm"),
    ("the two glyphs of mucosa", "上颌窦黏膜增厚", "上颌窦粘膜增厚"),
    ("invisible characters", "左\u200b肺\ufeff上\u00ad叶", "左肺上叶"),
    ("blanks inside Chinese", "腰 4/5 椎间盘　突出", "腰4/5椎间盘突出"),
    ("markup", "<p>左肺&nbsp;结节</p>", "左肺结节\n"),
    ("line ends", "1、左肺\r\n2、右肺", "1、左肺\n2、右肺"),
]


@pytest.mark.parametrize(("one", "other"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_texts_that_differ_only_in_notation_have_one_matching_copy(one: str, other: str) -> None:
    assert normalise(one).text.strip() == normalise(other).text.strip()


@pytest.mark.parametrize("sign", ["²", "³", "Ⅰ", "Ⅳ", "①", "⑩"])
def test_signs_that_plain_unicode_folding_would_turn_into_digits_stay(sign: str) -> None:
    assert normalise(f"面积5cm{sign}").text == f"面积5cm{sign}"


def test_a_span_of_the_matching_copy_leads_back_to_the_text_as_received() -> None:
    raw = "<b>雙 側</b>胸腔&nbsp;積液，大小 5 X 4mm"
    mapped = normalise(raw)
    for piece, original in (("双侧", "雙 側"), ("积液", "積液"), ("5 × 4mm", "5 X 4mm")):
        start = mapped.text.index(piece)
        begin, end = mapped.span(start, start + len(piece))
        assert raw[begin:end] == original


@given(st.text(max_size=120))
def test_every_copy_of_any_text_keeps_an_ascending_way_back(raw: str) -> None:
    for mapped in (normalise(raw), clean(raw), deidentify(raw, known=("张三丰",))):
        assert len(mapped.offsets) == len(mapped.text) + 1
        assert mapped.offsets[-1] == len(raw)
        assert list(mapped.offsets) == sorted(mapped.offsets)
        assert mapped.offsets[0] >= 0


def test_the_hash_of_findings_ignores_width_and_blanks_and_nothing_else() -> None:
    findings = "右肺上叶结节，大小约５×４ｍｍ。"
    assert findings_hash(findings) == findings_hash(" 右肺上叶结节, 大小约5x4mm。\n")
    assert findings_hash(findings) != findings_hash(findings.replace("右", "左"))
    assert findings_hash(findings) != findings_hash(findings.replace("５", "６"))
    assert len(findings_hash("\ud800")) == 64


def test_the_models_copy_keeps_the_wording_and_loses_markup_and_header_lines() -> None:
    raw = (
        "姓名：王小明  性别：男  年龄：45岁\r\n检查号：CT202200123\r\n________\r\n"
        "&lt;p&gt;兩肺紋理增多，左肺見結節&lt;/p&gt;<br/>大小<5mm，\u00a0CT值 <10HU。"
    )
    assert clean(raw).text == "兩肺紋理增多，左肺見結節\n大小<5mm， CT值 <10HU。"


def test_markup_that_two_systems_escaped_is_removed_to_the_end() -> None:
    assert clean("&amp;lt;br&amp;gt;左肺&amp;nbsp;结节").text == "左肺 结节"


def test_model_control_tokens_are_no_markup() -> None:
    assert clean("左肺<end_of_turn>结节<eos>").text == "左肺<end_of_turn>结节<eos>"


SECTIONS = [
    ("两肺纹理清晰。\n胸部CT平扫示：\n1、两肺未见异常。", "胸部CT平扫", "两肺纹理清晰。", "1、两肺未见异常。"),
    ("两肺纹理清晰。\n胸部CT平扫示：两肺未见异常。", "胸部CT平扫", "两肺纹理清晰。", "两肺未见异常。"),
    ("两肺纹理清晰。\n胸部CT平扫示:两肺未见异常。", "胸部CT平扫", "两肺纹理清晰。", "两肺未见异常。"),
    ("主动脉CTA示：管壁钙化。\n主动脉CTA示：\n1.动脉硬化。", "主动脉CTA", "主动脉CTA示：管壁钙化。", "1.动脉硬化。"),
    ("影像所见：\n肝脏大小正常。\n影像诊断：\n脂肪肝。", None, "肝脏大小正常。", "脂肪肝。"),
    ("描述：肝脏大小正常。\n结论：脂肪肝。", None, "肝脏大小正常。", "脂肪肝。"),
    ("【检查所见】肝内低密度影。\n【诊断意见】肝囊肿。", None, "肝内低密度影。", "肝囊肿。"),
    ("影像學表現：肝臟正常。\n印象：脂肪肝。", None, "肝臟正常。", "脂肪肝。"),
    ("肝脏大小正常。\n1、脂肪肝；\n2、肝囊肿。", None, "肝脏大小正常。", "1、脂肪肝；\n2、肝囊肿。"),
    ("脑室系统无异常。\n头颅CT平扫未见明显异常。", None, "脑室系统无异常。", "头颅CT平扫未见明显异常。"),
]


@pytest.mark.parametrize(("text", "title", "findings", "impression"), SECTIONS)
def test_a_report_is_cut_at_its_last_title(text: str, title: str | None, findings: str, impression: str) -> None:
    sections = split_sections(text)
    assert (sections.exam_title, sections.findings, sections.impression) == (title, findings, impression)


@pytest.mark.parametrize("text", ["", "两肺纹理清晰。", "印象：\n", "胸部CT平扫示：\n1、两肺未见异常。"])
def test_a_text_without_a_border_is_refused(text: str) -> None:
    with pytest.raises(NoBorder):
        split_sections(text)


def test_sentences_end_at_semicolons_and_line_ends_but_not_inside_numbers() -> None:
    text = "1.肝囊肿，约1.2cm；胆囊结石。\n 请随诊 "
    assert [text[start:end] for start, end in sentences(text)] == ["1.肝囊肿，约1.2cm", "胆囊结石", "请随诊"]


IDENTIFIED = [
    ("姓名：王小明，男，45岁。左肺结节", ("王小明",)),
    ("患者姓名: 欧阳修文 性别:男", ("欧阳修文",)),
    ("患者李四，男，60岁，咳嗽", ("李四",)),
    ("住院号：ZY0012345；检查号:CT20221234", ("ZY0012345", "CT20221234")),
    ("联系电话：13812345678", ("13812345678",)),
    ("家属手机13912345678。", ("13912345678",)),
    ("座机010-62345678", ("010-62345678",)),
    ("身份证990000198001010015", ("990000198001010015",)),
    ("住址：某市某区人民路12号3单元，左肺结节", ("人民路12号",)),
    ("出生日期：1980年1月2日", ("1980年1月2日",)),
    ("报告医师：赵一 审核医师：钱二", ("赵一", "钱二")),
    ("已电话通知急诊科孙医生", ("孙",)),
]


def _with_valid_check_digit(text: str) -> str:
    number = "990000198001010015"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    digit = "10X98765432"[sum(int(d) * w for d, w in zip(number[:17], weights, strict=True)) % 11]
    return text.replace(number, number[:17] + digit)


@pytest.mark.parametrize(("raw", "gone"), IDENTIFIED)
def test_labelled_identifiers_are_taken_out(raw: str, gone: tuple[str, ...]) -> None:
    raw = _with_valid_check_digit(raw)
    text = deidentify(raw).text
    assert "○" in text
    for identifier in gone:
        assert _with_valid_check_digit(identifier) not in text


@pytest.mark.parametrize(
    "raw",
    [
        "左肺上叶结节，大小约5×4mm（Se5，Im186）。CT值约30HU。",
        "较2021-07-22片，病灶增大。",
        "腰3/4、腰4/5椎间盘膨出，L5/S1突出。",
        "左房体积约166.295ml，冠脉钙化积分总分=406.31。",
        "患者体位欠佳，名称不详的植入物。",
    ],
)
def test_clinical_text_is_left_alone(raw: str) -> None:
    assert deidentify(raw).text == raw


def test_the_records_own_identifiers_are_found_without_a_label() -> None:
    mapped = deidentify("王小明左肺结节，编号A12，大小A123", known=("王小明", "a12", "左"))
    assert mapped.text == "○○左肺结节，编号○○，大小A123"
    assert mapped.span(0, 2) == (0, 3)
