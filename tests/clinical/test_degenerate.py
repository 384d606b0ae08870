"""Drafts that are no impression: each kind is found, and ordinary impressions are not."""

import pytest

from clinical.checks import Kind, Pair, Severity, check, looping

FINDINGS = "右肺上叶见实性结节，大小约5×4mm。左侧胸腔见弧形液体密度影。LAD近段管壁见钙化斑块。"
ONE_ITEM = "右肺上叶实性结节，建议随访复查"


def withheld(impression: str, **known: object) -> set[Kind]:
    pair = Pair(FINDINGS, impression, **known)  # type: ignore[arg-type]
    return {issue.kind for issue in check(pair) if issue.severity is Severity.WITHHOLD}


WITHHELD = [
    (Kind.NULL, "", {}),
    (Kind.NULL, " \n\u200b", {}),
    (Kind.NULL, "。；、…", {}),
    (Kind.NULL, "1、\n2、", {}),
    (Kind.NULL, "无", {}),
    (Kind.NULL, "None", {}),
    (Kind.NULL, "肺", {}),
    (Kind.NULL, "请结合临床，随诊。", {}),
    (Kind.NULL, "建议必要时MR检查；\n请结合临床随诊复查。", {}),
    (Kind.REPETITION, "右肺上叶结节" + "右肺上叶结节" * 5, {}),
    (Kind.REPETITION, "的" * 30, {}),
    (Kind.REPETITION, "结节，结节，结节，结节，结节，结节", {}),
    (Kind.REPETITION, "".join(f"{n}、{ONE_ITEM}；\n" for n in range(1, 15)), {}),
    (Kind.REPETITION, "1、右肺上叶实性结节；\n2、左侧胸腔积液；\n3、右肺上叶实性结节。", {}),
    (Kind.REPETITION, "".join(f"{n}、腰{n}/{n + 1}椎间盘突出；\n" for n in range(1, 40)), {}),
    (Kind.TRUNCATION, "1、右肺上叶实性结节；\n2、左侧胸", {"finish": "length"}),
    (Kind.TRUNCATION, "1、右肺上叶实性结节，大小约5×", {}),
    (Kind.TRUNCATION, "1、右肺上叶实性结节，大小约5", {}),
    (Kind.TRUNCATION, "1、右肺上叶实性结节；\n2、", {}),
    (Kind.TRUNCATION, "右肺上叶结节、", {}),
    (Kind.TRUNCATION, "右肺上叶结节伴", {}),
    (Kind.TRUNCATION, "右肺上叶结节（大小约5mm", {}),
    (Kind.TRUNCATION, "右肺上叶结节，", {"finish": "stop"}),
    (Kind.PROMPT_LEAK, "<start_of_turn>model\n右肺上叶实性结节", {}),
    (Kind.PROMPT_LEAK, "右肺上叶实性结节<eos>", {}),
    (Kind.PROMPT_LEAK, "用户：请生成\n右肺上叶实性结节", {}),
    (Kind.PROMPT_LEAK, "印象：右肺上叶实性结节。", {}),
    (Kind.PROMPT_LEAK, "右肺上叶实性结节，大小约××mm。", {}),
    (Kind.PROMPT_LEAK, "右肺上叶实性结节，大小约XXmm。", {}),
    (Kind.PROMPT_LEAK, "患者某某右肺上叶结节。", {}),
    (Kind.PROMPT_LEAK, "右肺{部位}实性结节。", {}),
    (Kind.PROMPT_LEAK, "右肺上叶结节，大小约____。", {}),
    (Kind.PROMPT_LEAK, "【右肺】上叶实性结节。", {}),
    (Kind.PROMPT_LEAK, "根据上述影像所见，右肺上叶实性结节。", {}),
    (Kind.PROMPT_LEAK, "作为一名放射科医生，右肺上叶实性结节。", {}),
    (
        Kind.PROMPT_LEAK,
        "您需要以专业口吻概括影像表现并给出诊断。右肺上叶结节。",
        {"prompt": "您需要以专业口吻概括影像表现并给出诊断。"},
    ),
    (Kind.PHI, "姓名：王小明，右肺上叶结节。", {}),
    (Kind.PHI, "右肺上叶结节，住院号：ZY001234。", {}),
    (Kind.PHI, "右肺上叶结节，电话13812345678。", {}),
    (Kind.PHI, "王小明右肺上叶结节。", {"known": ("王小明",)}),
    (Kind.LANGUAGE, "우상엽 결절이 있습니다", {}),
    (Kind.LANGUAGE, "右肺上葉に結節を認める", {}),
    (Kind.LANGUAGE, "There is a solid nodule in the right upper lobe.", {}),
    (Kind.LANGUAGE, "右肺上叶结节，please correlate with clinical history。", {}),
    (Kind.LANGUAGE, "右肺上叶结节。", {"language": "en"}),
    (Kind.LANGUAGE, "Nodule dans le lobe supérieur sans épanchement avec le reste.", {"language": "en"}),
]


@pytest.mark.parametrize(("kind", "impression", "known"), WITHHELD)
def test_a_degenerate_draft_is_withheld(kind: Kind, impression: str, known: dict[str, object]) -> None:
    assert kind in withheld(impression, **known)


PASSES = [
    "1、右肺上叶实性结节；\n2、左侧胸腔积液。\n请结合临床，随诊。",
    "右肺上叶实性结节",
    "1.右肺上叶小结节(约5×4mm)；LAD近段钙化斑块（CAD-RADS 1）；",
    "腰1/2、腰2/3、腰3/4、腰4/5、腰5/骶1椎间盘膨出；腰3/4、腰4/5、腰5/骶1椎间盘突出，相应硬膜囊受压。",
    "颈3/4椎间盘突出；颈4/5椎间盘突出；颈5/6椎间盘突出；颈6/7椎间盘突出。",
    "".join(f"{n}、{level}椎间盘突出，相应硬膜囊受压；\n" for n, level in enumerate(("颈3/4", "颈4/5", "颈5/6", "颈6/7", "胸1/2"), 1)),
    "主动脉夹层（Stanford B）；脑白质变性（Fazekas 2级）；肝Ca。",
    "冠状动脉粥样硬化，LAD、LCX、RCA多发钙化斑块，CAD-RADS 3。",
    "两肺未见明显异常。\n请结合临床随诊。",
    "较前片相仿。附见：肝囊肿。",
    "T11椎体压缩性骨折；L4/5椎间盘突出，必要时MR检查。",
]  # fmt: skip


@pytest.mark.parametrize("impression", PASSES)
@pytest.mark.parametrize("finish", ["stop", None])
def test_an_ordinary_impression_is_never_withheld(impression: str, finish: str | None) -> None:
    assert withheld(impression, finish=finish) == set()


def test_a_heading_or_bracket_of_the_house_itself_is_no_leak() -> None:
    pair = Pair("【肺】右肺上叶结节。【胸膜】未见积液。", "【肺】右肺上叶结节。")
    assert not [issue for issue in check(pair) if issue.kind is Kind.PROMPT_LEAK]


def test_words_of_the_findings_are_no_echo_of_the_prompt() -> None:
    copied = "右肺上叶见实性结节，大小约5×4mm"
    assert withheld(copied + "。", prompt=f"请给出诊断意见。所见：{FINDINGS}") == set()


def test_traditional_glyphs_in_a_simplified_house_are_marked_not_withheld() -> None:
    issues = [issue for issue in check(Pair("右肺上叶结节。", "右肺上葉結節。")) if issue.kind is Kind.LANGUAGE]
    assert [issue.severity for issue in issues] == [Severity.AMBER]
    assert not [
        i for i in check(Pair("右肺上葉結節。", "右肺上葉結節。", language="zh-Hant")) if i.kind is Kind.LANGUAGE
    ]


def test_an_issue_points_at_the_text_as_given() -> None:
    impression = "右肺上葉結節，電話　13812345678。"
    issue = next(issue for issue in check(Pair(FINDINGS, impression)) if issue.kind is Kind.PHI)
    assert issue.span_impression is not None
    assert impression[slice(*issue.span_impression)] == "13812345678"


LOOPS = [
    "右肺上叶结节，" * 4,
    "是" * 12,
    "右肺上叶结节。" + "左侧胸腔积液，建议随访复查，" * 3,
    "".join(f"{n}、{ONE_ITEM}；\n" for n in range(1, 6)),
    "".join(f"腰{n}椎体骨质增生；" for n in range(1, 9)),
]
NO_LOOPS = [
    "",
    "右肺上叶结节，右肺中叶结节，右肺下叶结节",
    *PASSES,
    "左侧额叶、左侧颞叶、左侧顶叶、左侧枕叶",
]


@pytest.mark.parametrize("text", LOOPS)
def test_a_loop_is_noticed_while_it_is_written(text: str) -> None:
    assert looping(text)


@pytest.mark.parametrize("text", NO_LOOPS)
def test_writing_on_is_no_loop_at_any_point(text: str) -> None:
    assert not [end for end in range(len(text) + 1) if looping(text[:end])]
