"""Many texts looked at in one pass become exactly what each becomes alone, whatever stands at their borders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical import cleaning
from clinical.deidentify import deidentify, present
from clinical.non_essential import read, shipped
from clinical.text import findings_hash, findings_hashes
from clinical.together import Together

PIECES = (
    "右肺上叶见结节", "约5×4mm", "2*3cm", "X线", "。", "；", ";", "\n", "\n\n", " ", "　", "，", ",", "：", ":", "(", "（", "】", "【",
    "姓名：王小明", "患者", "王小明", "王 小-明", "歐陽", "欧阳", "住院号", "编号12345678", "1234", "12-34", "１２３４", "990000198001010X",
    "床", "12床", "号", "电话", "影像所见：", "检查所见：", "印象：", "诊断意见", "胸部CT平扫示：", "检查日期：2024-01-02", "性别：男",
    "____", "-----", "- ", "以下空白", "本报告仅供临床参考", "結節", "&nbsp;", "<br>", "&lt;", "\r\n", "\u200b", "\u1680", "\x00", "\ud800", "𠮷",
    "草稿", "？", "?", "cm?", "××", "补充报告", "请结合临床", "建议复查", "a", "Smith", "", "○○",
)  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
TERMS = read('[[reason]]\nname = "ours"\ntexts = ["本科室。存档", "A。"]', "own").with_more(shipped())


@pytest.mark.parametrize("which", ["readable", "findings", "impression"])
@given(raws=st.lists(TEXT, max_size=6), known=st.sampled_from([(), ("王小明",), ("1234", "Smith")]))
def test_each_of_many_texts_is_cleaned_as_it_is_alone(which: str, raws: list[str], known: tuple[str, ...]) -> None:
    all_of_them = {
        "readable": cleaning.all_readable,
        "findings": cleaning.all_findings,
        "impression": cleaning.all_impressions,
    }
    alone = {"readable": cleaning.readable, "findings": cleaning.findings, "impression": cleaning.impression}
    theirs = dict.fromkeys(range(0, len(raws), 2), known) if known else {}
    made = all_of_them[which](raws, theirs, TERMS)
    expected = [alone[which](raw, theirs.get(number, ()), TERMS) for number, raw in enumerate(raws)]
    assert [made.get(number, cleaning.Readable(raw, ())) for number, raw in enumerate(raws)] == expected


@given(
    st.lists(
        st.tuples(TEXT, st.lists(st.sampled_from(PIECES).filter(bool), max_size=4).map(tuple)),
        max_size=6,
    )
)
def test_no_identifier_of_a_record_is_overlooked_in_its_text(records: list[tuple[str, tuple[str, ...]]]) -> None:
    raws, known = [raw for raw, _ in records], [its for _, its in records]
    found = present(Together(raws), known)
    for number, (raw, its) in enumerate(records):
        assert deidentify(raw, known=tuple(found.get(number, ()))) == deidentify(raw, known=its)


@given(st.lists(TEXT, max_size=6))
def test_each_of_many_findings_has_the_hash_that_it_has_alone(texts: list[str]) -> None:
    assert findings_hashes(texts) == [findings_hash(text) for text in texts]
