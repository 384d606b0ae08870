"""How much of who a patient is gets found, and how much of what a report says gets harmed: measured on planted identities."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical.deidentify import PLACEHOLDER, RULES, deidentify, fold, is_suspect, valid_card
from clinical.lexicon import rows
from clinical.text import clean
from sandbox import generator
from tests.clinical.canaries import Canary, canaries, known_canaries

LEAST = {
    "name": 0.95, "doctor": 0.95, "number": 0.995, "bed": 0.99, "phone": 0.995, "landline": 0.995, "card": 0.995, "address": 0.95, "birth": 0.99,
    "known": 0.995,
}  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> list[Canary]:
    return [*canaries(9_000, seed=20251122), *known_canaries(1_000, seed=20251122)]


def test_planted_identities_are_taken_out(planted: list[Canary]) -> None:
    seen: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for canary in planted:
        text = deidentify(canary.text, known=canary.known).text
        seen[canary.kind] += 1
        gone[canary.kind] += canary.secret not in text if canary.kind != "bed" else PLACEHOLDER in text
    recall = {kind: gone[kind] / seen[kind] for kind in seen}
    assert set(recall) == set(LEAST)
    assert {kind: share for kind, share in recall.items() if share < LEAST[kind]} == {}


def test_beside_a_planted_identity_the_findings_stay_whole(planted: list[Canary]) -> None:
    """Not a character of any sentence but the planted one is lost, so no measurement is."""
    harmed = []
    for canary in planted:
        text = deidentify(canary.text, known=canary.known).text
        pieces = [canary.findings] if canary.findings in canary.text else canary.findings.split("，", 1)
        harmed += [canary.text for piece in pieces if piece not in text]
    assert harmed == []


GUARDED = [
    "L4/5", "S8", "5.6×3.2cm", "T2WI", "BI-RADS 4A", "较2025-10-03片", "Se5，Im186", "（Se5，Im41-42）", "SUVmax约4.7", "SUVmax 12.35", "CT值约35HU",
    "TI-RADS 4b类",
    "腰3/4、腰4/5椎间盘", "C1-C7", "冠脉钙化积分总分=406.31", "左房体积约166.295ml", "20mm×43mm×15mm", "20 mm × 43 mm", "ADC值约0.85×10-3mm2/s",
    "b=1000", "TR/TE 4500/98",
    "T1WI呈等信号：T2WI呈高信号", "层厚1.25mm", "较20251003片增大", "2025年10月3日CT", "胃3/4", "11枚", "第4组淋巴结", "M1段", "PI-RADS 3分",
    "K-L 2级", "Cobb角12°", "HU：-10~20",
    "胎龄32周", "约1200ml", "床旁胸片", "临床诊断", "请结合临床", "建议专科医生会诊", "请临床医师结合病史", "患者体位欠佳", "DR 胸片。",
    "DR：胸部正位", "较门诊（2024-05）片", "住院（3周）", "Dr法", "病人高度紧张，",
    "患者呼吸配合差", "患者于外院行手术",
    "法洛·四联症", "主任医师", "住院医师", "管床医生", "高年资医师", "当时医生", "信号：均匀", "型号：3.5×24", "图像号：186", "第3-5肋", "S1 S2 S3",
    "1 2 3 4 5 6 7 8 9 10 11 12胸椎",
    "白细胞升高", "患者白细胞12.5", "患者车祸", "病人安静", "钙化灶：12枚", "范围：35mm", "12:30扫描", "1.5T", "3.0T磁共振", "64排", "120kV，250mAs",
    "FOV 350×350", "矩阵512×512",
]  # fmt: skip


@pytest.mark.parametrize("clinical", GUARDED)
def test_what_a_report_says_of_the_body_is_left_alone(clinical: str) -> None:
    for text in (clinical, f"所见：{clinical}。余未见异常。", f"右肺结节{clinical}，边清。"):
        assert deidentify(text).text == text


def test_hardly_any_medical_term_is_touched() -> None:
    terms = {
        term
        for name in ("anatomy.tsv", "lesions.tsv", "critical.tsv", "scorer_dictionary.txt")
        for row in rows(name)
        for term in row[0].split("|")
        if len(term) > 1
    }
    frames = ("{}", "患者{}", "{}：未见异常", "（{}）", "请结合{}医生意见", "病人{}，男")
    touched = {
        (frame, term) for frame in frames for term in terms if deidentify(frame.format(term)).text != frame.format(term)
    }
    assert len(terms) > 1_000
    assert len(touched) <= 0.01 * len(terms) * len(frames), sorted(touched)[:20]


def test_generated_reports_without_a_header_line_are_left_alone() -> None:
    reports = [
        report for report in generator.generate("balanced", scale=0.003, seed=5) if "姓名" not in report.findings
    ]
    texts = [clean(text).text for report in reports for text in (report.findings, report.impression)]
    assert len(texts) > 1_500
    assert [text for text in texts if deidentify(text).text != text] == []


def test_a_text_that_is_passed_over_holds_nothing_that_a_rule_would_find(planted: list[Canary]) -> None:
    for canary in planted:
        folded = fold(canary.text)
        if not is_suspect(folded):
            assert [what for what, rule in RULES if rule.search(folded)] == []


ODD = (
    "号床:：=#|【】()（）.- \n0123456789Xx年月日生省市区路县村弄室幢姓名患者医师生主任先女士·电话手机王小明欧阳住址出生"
)


@given(st.text(ODD, max_size=40))
def test_nothing_is_passed_over_in_odd_text_either(text: str) -> None:
    if not is_suspect(text):
        assert [(what, rule.search(text)) for what, rule in RULES if rule.search(text)] == []


@given(st.text(max_size=60) | st.text(ODD, max_size=60))
def test_folding_moves_no_character_and_finding_twice_finds_nothing_more(text: str) -> None:
    assert len(fold(text)) == len(text)
    once = deidentify(text, known=("王小明", "12345"))
    assert once.span(0, len(once.text)) == (0, len(text))
    assert len(once.offsets) == len(once.text) + 1


def test_a_header_line_is_dropped_whole_in_either_script_and_width() -> None:
    for header in (
        "姓名：王小明  性别：男  年龄：45岁 检查号：CT202200123",
        "姓名：王小明　性別：男　年齡：４５歲　檢查號：ＣＴ２０２２００１２３",
        "就诊卡号：0012345 床号：12",
        "病人姓名: 李四 科别: 骨科",
    ):
        assert clean(f"{header}\n两肺纹理清晰。").text == "两肺纹理清晰。"


def test_a_resident_number_is_known_by_its_check_digit() -> None:
    assert valid_card("11010519491231002X")
    assert not valid_card("110105194912310021")
    assert not valid_card("11010519491331002X")
    assert not valid_card("1101051949123100")
