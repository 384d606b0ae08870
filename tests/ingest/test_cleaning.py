"""What is taken out of a report before a model reads it, what is counted, and why a report does not train."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical import cleaning as rules
from clinical.lexicon import lesion_terms
from clinical.non_essential import NonEssential, read, shipped
from clinical.text import normalise
from core.states import ReportStatus
from ingest.cleaning import STANDARD, Cleaned, Cleaning, cleaned_batch
from ingest.exclusions import WHY, Exclusion
from sandbox import generator
from worker.prompt import model_text

FINDINGS = "两肺纹理清晰，右肺上叶见实性结节，长径约6mm。左侧胸腔未见积液。"
IMPRESSION = "1、右肺上叶实性结节；\n2、建议年度复查。"


@dataclass(frozen=True)
class Texts:
    findings: str = FINDINGS
    impression: str = IMPRESSION
    history: str | None = None
    prior_impression: str | None = None
    status: ReportStatus = ReportStatus.FINAL
    known: tuple[str, ...] = ()


def cleaned(row: Texts, cleaning: Cleaning = STANDARD) -> Cleaned:
    return cleaned_batch([row], cleaning)[0]


def made(
    findings: str = FINDINGS, impression: str = IMPRESSION, known: tuple[str, ...] = (), language: str = "zh-Hans"
) -> Cleaned:
    return cleaned(Texts(findings, impression, known=known), Cleaning(language))


@pytest.mark.parametrize(
    ("raw", "text", "removed"),
    [
        ("右肺结节，长径6mm。右肺结节，长径6mm。", "右肺结节，长径6mm。", ("repeated_text",)),
        ("两肺纹理清晰。心影不大。心影不大。膈面光整。", "两肺纹理清晰。心影不大。膈面光整。", ("repeated_sentence",)),
        ("胸部CT平扫\n胸部CT平扫\n两肺纹理清晰。", "胸部CT平扫\n两肺纹理清晰。", ("repeated_sentence",)),
        ("影像所见：检查所见：两肺纹理清晰。", "两肺纹理清晰。", ("title", "repeated_title")),
        ("【影像表现】两肺纹理清晰。", "两肺纹理清晰。", ("title",)),
        ("放射学表现\n两肺纹理清晰。", "两肺纹理清晰。", ("title",)),
        (
            "左膝骨质未见异常。关节在位。右膝骨质增生。关节在位。",
            "左膝骨质未见异常。关节在位。右膝骨质增生。关节在位。",
            (),
        ),
        ("两肺纹理清晰。以下空白", "两肺纹理清晰。", ("以下空白",)),
        ("两肺纹理清晰，本报告仅供临床参考。", "两肺纹理清晰。", ("本报告仅供临床参考",)),
        ("两肺纹理清晰（详见图像），心影不大。", "两肺纹理清晰，心影不大。", ("详见图像",)),
        ("本報告僅供臨床參考。兩肺紋理清晰。", "兩肺紋理清晰。", ("本报告仅供临床参考",)),
        ("所示仅供参考线以下空白区域未见钙化。", "所示仅供参考线以下空白区域未见钙化。", ()),
    ],
)
def test_findings_lose_what_stands_twice_or_says_nothing_and_it_is_counted(
    raw: str, text: str, removed: tuple[str, ...]
) -> None:
    found = made(raw)
    assert (found.findings, found.removed) == (text, removed)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("影像诊断：\n1、右肺结节。", "1、右肺结节。"),
        ("胸部CT平扫示：胸部CT平扫示：右肺结节。", "右肺结节。"),
        ("放射学诊断\n1）右肺结节。", "1）右肺结节。"),
        ("【诊断意见】右肺结节。\n谢谢！", "右肺结节。\n谢谢！"),
        ("右肺结节。\n以上仅供参考，最终诊断以临床为准。", "右肺结节。\n以上仅供参考。"),
        (f"{FINDINGS}\n影像诊断：右肺结节。", "右肺结节。"),
    ],
)
def test_an_impression_loses_its_titles_and_the_findings_above_it(raw: str, text: str) -> None:
    assert made(impression=raw).impression == text


REASONS = [
    (FINDINGS, "AI 草稿，须医师审核\n右肺结节。", "label_left_over"),
    (FINDINGS.replace("结", "\ufffd"), IMPRESSION, "replacement_char"),
    ("右肺结节，面积约3cm?，边清。", IMPRESSION, "lossy_source"),
    ("右肺结节，大小12?15mm。", IMPRESSION, "lossy_source"),
    (FINDINGS, "更正：左肺结节。", "addendum_only"),
    ("右肺结节，大小约____mm。", IMPRESSION, "template_unfilled"),
    ("姓名：王小明 性别：男", IMPRESSION, "empty_findings"),
    (FINDINGS, FINDINGS, "empty_impression"),
    (FINDINGS, "影像诊断：\n", "title_only"),
    (FINDINGS, "请结合临床，建议随访复查。", "advice_only"),
    ("The lungs are clear. No effusion.", IMPRESSION, "non_chinese"),
    ("右肺上叶见结节，大小约12×", IMPRESSION, "truncated"),
    (FINDINGS, "右肺结节，已电话通知急诊科王医生。", "phi_hit"),
]


@pytest.mark.parametrize(("findings", "impression", "reason"), REASONS)
def test_a_report_that_teaches_something_wrong_is_kept_out_with_a_reason(
    findings: str, impression: str, reason: str
) -> None:
    assert made(findings, impression).excluded == reason
    assert cleaned(Texts(findings, impression, status=ReportStatus.PRELIMINARY)).excluded is None


@pytest.mark.parametrize(
    ("width", "charset", "cut"),
    [
        (len(FINDINGS), "utf-8", True),
        (len(FINDINGS) + 1, "utf-8", True),
        (len(FINDINGS) + 2, "utf-8", False),
        (len(FINDINGS.encode("gbk")), "gbk", True),
    ],
)
def test_a_text_as_long_as_its_column_is_wide_may_be_cut(width: int, charset: str, cut: bool) -> None:
    found = cleaned(Texts(), Cleaning(widths=(("findings", width, charset),)))
    assert found.excluded == ("possibly_truncated" if cut else None)


def test_every_reason_has_a_sentence_and_those_of_one_report_a_case_here() -> None:
    elsewhere = {"absent", "duplicate", "near_duplicate", "possibly_truncated"}
    assert {str(reason) for reason in Exclusion} == elsewhere | {reason for _, _, reason in REASONS}
    assert set(WHY) == set(Exclusion)


@pytest.mark.parametrize(
    ("findings", "impression"),
    [
        (FINDINGS, IMPRESSION),
        (FINDINGS, "左乳结节，建议超声检查。"),
        (FINDINGS, "肝囊肿?"),
        (FINDINGS, "双肾囊肿,Bosniak Ⅱ."),
        ("右侧第3-5肋骨折，断端约2×3mm。", "未见异常。"),
        ("两肺未见异常？", "胸部CT平扫未见明显异常。"),
    ],
)
def test_a_report_against_which_nothing_speaks_may_train(findings: str, impression: str) -> None:
    assert made(findings, impression).excluded is None


def test_an_institution_that_writes_english_is_not_asked_for_chinese() -> None:
    assert made("The lungs are clear.", "No acute finding.", language="en").excluded is None


def test_no_finding_is_lost_from_generated_reports() -> None:
    """Words for findings are the same in number before and after, but for what stood twice."""
    reports = list(generator.generate("balanced", scale=0.002, seed=8))
    for report in reports:
        row = Texts(report.findings, report.impression)
        clean = cleaned(row)
        if any(what.startswith("repeated") for what in clean.removed):
            continue
        for raw, text in ((row.findings, clean.findings), (row.impression, clean.impression)):
            assert len(lesion_terms().find(normalise(text).text)) == len(lesion_terms().find(normalise(raw).text))
    assert len(reports) > 500


ODD = st.text(
    "右肺结节。；;，,\n 　：:王小明12号x×5mm()（）示影像所见诊断以下空白<br>&amp;?\ufffd姓名Ａ雙", max_size=60
)


@given(
    st.lists(
        st.builds(
            Texts,
            ODD,
            ODD,
            st.none() | ODD,
            st.none() | ODD,
            st.sampled_from(ReportStatus),
            st.sampled_from([(), ("王小明",), ("12号x",)]),
        ),
        max_size=4,
    )
)
def test_a_batch_is_cleaned_as_its_rows_are_and_cleaning_never_raises(rows: list[Texts]) -> None:
    assert cleaned_batch(rows) == [cleaned(row) for row in rows]


@given(ODD)
def test_cleaning_only_takes_away(raw: str) -> None:
    """No character of a cleaned text is new but the gap, and cleaning does not make a text longer than its gaps."""
    text = rules.readable(raw, ("王小明",)).text
    assert set(text) - set(raw) <= set("○ \n<>&")


def test_what_is_stored_reads_to_a_model_as_what_is_asked() -> None:
    for report in generator.generate("balanced", scale=0.0005, seed=4):
        stored = cleaned(Texts(report.findings, report.impression))
        assert model_text(stored.findings) == model_text(report.findings)


def test_the_version_changes_with_the_statements_and_the_language() -> None:
    own = NonEssential({**shipped().reasons, "本科室存档": "archive"})
    versions = {Cleaning().version, Cleaning("en").version, Cleaning(terms=own).version}
    assert len(versions) == 3
    assert cleaned(Texts(), Cleaning(terms=own)).version == Cleaning(terms=own).version


def test_a_department_s_own_statements_are_taken_out_too() -> None:
    own = shipped().with_more(read('[[reason]]\nname = "archive"\ntexts = ["本科室存档"]\n', "own"))
    found = cleaned(Texts(f"{FINDINGS}本科室存档。以下空白"), Cleaning(terms=own))
    assert found.findings == FINDINGS
    assert found.removed == ("本科室存档", "以下空白")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[[reason]]\nname = "x"\ntexts = ["未见结节"]\n', "names a structure or a finding"),
        ('[[reason]]\nname = "x"\ntexts = ["左肺"]\n', "names a structure or a finding"),
        ('[[reason]]\nname = "x"\ntexts = ["a, b"]\n', "without blanks"),
        ('[[reason]]\ntexts = ["谢谢"]\n', "has a name"),
        ("texts = [", "non_essential.toml"),
    ],
)
def test_a_statement_that_could_take_out_a_finding_is_refused(content: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(content, "non_essential.toml")


def test_each_shipped_statement_is_taken_out_where_it_stands_alone() -> None:
    for statement in shipped().reasons:
        assert shipped().removed(f"两肺清晰。{statement}") == ("两肺清晰。", (statement,))
    assert len(shipped().reasons) > 60
    assert read('[[reason]]\nname = "a"\ntexts = ["再见"]', "x").reasons == {"再见": "a"}
