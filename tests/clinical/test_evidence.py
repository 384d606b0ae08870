"""Links between impression and findings: every sentence, every positive finding, spans of the texts as given."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clinical.checks import Kind, Pair, Severity, check
from clinical.evidence import Standing, evidence

FINDINGS = "右肺上叶见实性结节，大小约6mm。左侧胸腔弧形水样影。纵隔未见肿大淋巴结。肝内囊性灶。"


def test_each_sentence_is_linked_to_the_clauses_it_rests_on() -> None:
    impression = "1、右肺上叶结节；\n2、左侧胸腔积液；\n3、脾大；\n请结合临床。"
    found = evidence(Pair(FINDINGS, impression))
    linked = [
        (impression[slice(*one.span)], one.standing, [FINDINGS[slice(*s)] for s in one.findings])
        for one in found.sentences
    ]
    assert linked == [
        ("1、右肺上叶结节", Standing.SUPPORTED, ["右肺上叶见实性结节"]),
        ("2、左侧胸腔积液", Standing.SUPPORTED, ["左侧胸腔弧形水样影"]),
        ("3、脾大", Standing.UNSUPPORTED, []),
        ("请结合临床", Standing.ADVICE, []),
    ]


def test_findings_left_out_come_first_and_the_gravest_of_them_first() -> None:
    found = evidence(Pair(FINDINGS + "膈下新月形游离气体。", "左侧胸腔积液。"))
    text = FINDINGS + "膈下新月形游离气体。"
    assert [text[slice(*one.span)] for one in found.findings if one.omitted][:2] == [
        "膈下新月形游离气体",
        "右肺上叶见实性结节",
    ]
    severities = [one.severity for one in found.findings if one.omitted]
    assert severities == sorted(severities, reverse=True)
    assert not found.findings[-1].omitted
    assert "左侧胸腔积液。"[slice(*found.findings[-1].impression[0])] == "左侧胸腔积液"


def test_a_normal_statement_rests_on_what_the_findings_call_normal() -> None:
    found = evidence(Pair("双肾形态正常。右侧胸腔未见积液。", "双肾未见异常；右侧胸腔未见积液。"))
    assert [one.standing for one in found.sentences] == [Standing.SUPPORTED, Standing.SUPPORTED]


def test_what_the_check_calls_omitted_is_shown_as_left_out() -> None:
    pair = Pair(FINDINGS, "左侧胸腔积液。")
    named = {
        issue.span_findings for issue in check(pair) if issue.kind is Kind.OMITTED and issue.severity is Severity.AMBER
    }
    assert named <= {one.span for one in evidence(pair).findings if one.omitted}
    assert named


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.text(max_size=80))
def test_any_two_texts_can_be_linked(findings: str, impression: str) -> None:
    found = evidence(Pair(findings, impression))
    assert all(0 <= a <= b <= len(impression) for one in found.sentences for a, b in [one.span])
    assert all(0 <= a <= b <= len(findings) for one in found.findings for a, b in [one.span])
