"""Who the patient and the staff are, taken out of a text before a model sees it, and found again in what a model writes.

Label-anchored rules and the record's own identifiers; no list of surnames and no model. It finds what a reporting system
prints (姓名：, 住院号：, 电话：, header lines), not a name that stands alone in running text without a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from clinical.mapped import Mapped, replaced

PLACEHOLDER = "○○"

_BLANK = r"[ \t\u00a0\u3000]*"
_HAN_NAME = r"[\u4e00-\u9fff·]{1,8}?(?=[ \t\u3000,，;；。、(（\n]|$|性别|年龄|男|女|\d)"
_NAME_LABEL = (
    r"(?:(?:患者|病人|受检者|住院患者)?姓名|患者名|(?:报告|审核|诊断|检查|申请|书写|主管|操作|上级|阅片|会诊)(?:医师|医生|技师|者|人)(?:签名)?"
    r"|签名|技师|護士|护士|Patient(?: name)?|Name|Nom(?: du patient)?|Patiente?|Radiologist|Radiologue|Dr)"
)
_NUMBER_LABEL = (
    r"(?:(?:患者|病人|检查|影像|住院|门诊|急诊|病历|病案|登记|就诊|就诊卡|申请单|条码|医保|体检|放射|片|X线|CT|MRI?|DR|PACS|RIS|检查流水|流水|"
    r"身份证|证件|社保|病理|床位|序列)(?:号码?|ID|编号)|床号|病床|ID(?:号)?|(?:Patient|Accession|Study|Hospital)[ ]?(?:ID|No\.?|number)|MRN)"
)
_ADDRESS_LABEL = r"(?:家庭|联系|现|户籍|通讯|工作)?(?:住址|地址)|工作单位|籍贯"
_BIRTH_LABEL = r"出生(?:日期|年月|时间)?|生日|Date of birth|DOB|Date de naissance"
_PHONE_LABEL = r"(?:联系|家属|手机|固定)?(?:电话|手机)(?:号码?)?|联系方式|Tel(?:ephone)?|Phone"

_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("name", re.compile(rf"(?:{_NAME_LABEL}){_BLANK}[:：]{_BLANK}(?P<value>{_HAN_NAME}|[A-Z][A-Za-z.'’\-]+(?:[ ,]+[A-Z][A-Za-z.'’\-]+){{0,3}})")),
    ("name", re.compile(r"(?:患者|病人|受检者)[,，:：]?(?P<value>[\u4e00-\u9fff]{1,3}(?:某{1,2})?)(?=[,，][男女][,，性])")),
    ("name", re.compile(r"(?:告知|通知|联系|报告给?|致电)[\u4e00-\u9fff]{0,9}?(?:科|室|病房|病区)(?P<value>[\u4e00-\u9fff]{1,3})(?=医[生师]|主任|护士)")),
    ("number", re.compile(rf"(?:{_NUMBER_LABEL}){_BLANK}[:：#]{_BLANK}(?P<value>[A-Za-z0-9][A-Za-z0-9\-_/]{{1,30}})", re.IGNORECASE)),
    ("number", re.compile(r"(?:住院号|门诊号|检查号|病历号|影像号|登记号|身份证号?)(?P<value>[A-Za-z]{0,3}\d{4,20}[Xx]?)")),
    ("phone", re.compile(rf"(?:{_PHONE_LABEL}){_BLANK}[:：]{_BLANK}(?P<value>\+?[\d\-() ]{{5,20}}\d)", re.IGNORECASE)),
    ("phone", re.compile(r"(?<![\d.])(?P<value>(?:\+?86[- ]?)?1[3-9]\d{9})(?!\d)")),
    ("phone", re.compile(r"(?<![\d.])(?P<value>0\d{2,3}-\d{7,8})(?!\d)")),
    ("address", re.compile(rf"(?:{_ADDRESS_LABEL}){_BLANK}[:：]{_BLANK}(?P<value>[^\n,，;；。]{{2,60}})")),
    ("birth", re.compile(rf"(?:{_BIRTH_LABEL}){_BLANK}[:：]{_BLANK}(?P<value>\d{{4}}[年./\-]\d{{1,2}}(?:[月./\-]\d{{1,2}}日?)?)", re.IGNORECASE)),
)  # fmt: skip
_LATIN = re.compile(r"[A-Za-z0-9]")
_CARD = re.compile(r"(?<!\d)[1-9]\d{16}[\dXx](?!\d)")
_CARD_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

_HEADER_FIELD = (
    rf"(?:{_NAME_LABEL}|{_NUMBER_LABEL}|{_ADDRESS_LABEL}|{_BIRTH_LABEL}|{_PHONE_LABEL}|性别|年龄|科室|科别|病区|病室|送检科室|申请科室|"
    r"(?:检查|报告|审核|申请|登记|拍片|送检)(?:日期|时间)|检查(?:项目|部位|方法|设备|名称)|设备|临床诊断|病人来源|患者类型|医院|Sex|Age)"
)
HEADER_LINE = re.compile(
    rf"^(?:{_HEADER_FIELD}{_BLANK}[:：]{_BLANK}[^\n:：]{{0,40}}?(?:{_BLANK}(?=(?:{_HEADER_FIELD}){_BLANK}[:：])|$))+$",
    re.IGNORECASE,
)
"""A whole line of labelled header fields, as some systems print above the findings."""


def valid_card(number: str) -> bool:
    """Whether 18 characters are a resident identity number: birth date in range and the ISO 7064 MOD 11-2 check digit."""
    if not (len(number) == 18 and number[:17].isascii() and number[:17].isdigit()):
        return False
    if not ("1800" <= number[6:10] <= "2199" and "01" <= number[10:12] <= "12" and "01" <= number[12:14] <= "31"):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _CARD_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[17].upper()


def identifiers(raw: str, known: Sequence[str] = ()) -> Iterator[tuple[int, int, str]]:
    """(start, end, what) of each identifier in a text, in no order, possibly overlapping."""
    for what, rule in _RULES:
        for match in rule.finditer(raw):
            if match["value"].strip("-_ 某○*×Xx"):
                yield *match.span("value"), what
    for match in _CARD.finditer(raw):
        if valid_card(match[0]):
            yield *match.span(), "card"
    for identifier in known:
        if len(identifier.strip()) < 2:
            continue  # one character would hit half the text
        for match in re.finditer(re.escape(identifier.strip()), raw, re.IGNORECASE):
            if _whole(raw, *match.span()):
                yield *match.span(), "known"


def _whole(text: str, start: int, end: int) -> bool:
    """Not a piece of a longer number or Latin word: the id 12 is not found inside 1.12 or 2012."""
    before, after = text[start - 1 : start], text[end : end + 1]
    longer_before = _LATIN.match(text[start]) is not None and (before == "." or _LATIN.match(before) is not None)
    return not longer_before and not (_LATIN.match(text[end - 1]) is not None and _LATIN.match(after) is not None)


def deidentify(raw: str, *, known: Sequence[str] = ()) -> Mapped:
    """The text with each identifier replaced by `○○`; the offsets lead back to `raw`.

    `known` are the record's own identifiers (name, patient id, accession), taken out wherever they stand.
    """
    edits: list[tuple[int, int, str]] = []
    for start, end, _ in sorted(identifiers(raw, known)):
        if edits and start < edits[-1][1]:
            edits[-1] = (edits[-1][0], max(end, edits[-1][1]), PLACEHOLDER)
        else:
            edits.append((start, end, PLACEHOLDER))
    return replaced(raw, edits)
