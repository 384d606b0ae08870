"""Who the patient and the staff are, taken out of a text before a model sees it, and found again in what a model writes.

Rules over labels, forms and neighbours, and the record's own identifiers; no model. They read a folded copy of the text in which each character
stands at its own place, so that 住院號：１２３ is read as 住院号：123. A name that stands alone in running text, with neither a label nor a title
nor a word such as 患者 beside it, is found only when the record itself knows it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from clinical import names
from clinical.lexicon import traditional
from clinical.mapped import Mapped, identity, replaced
from clinical.together import Together

PLACEHOLDER = "○○"

# --- the folded copy ---------------------------------------------------------------------------------------------------

_FOLDS: dict[str, str] = {
    **{character: simple for character, simple in traditional().items() if character < "\U00010000"},
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0).isalnum()},
    **{chr(code): str(unicodedata.decimal(chr(code))) for code in range(0x100, 0x10000) if chr(code).isdecimal()},
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000\t", " "),
    **dict.fromkeys("－–—‐‑‒―−﹣", "-"),
    "於": "于", "＃": "#", "＝": "=", "＋": "+", "／": "/", "｜": "|", "．": ".", "＿": "_", "﹕": ":", "︰": ":", "＠": "@",
}  # fmt: skip
_FOLDABLE = re.compile(f"[{re.escape(''.join(_FOLDS))}]")
_TABLE = str.maketrans(_FOLDS)


def fold(raw: str) -> str:
    """As long as `raw`, character by character: simplified, letters, digits and blanks in half width."""
    return raw.translate(_TABLE) if _FOLDABLE.search(raw) is not None else raw


def all_folded(raws: Together) -> Together:
    """The folded copies of many texts."""
    foldable = raws.holding(_FOLDABLE)
    return Together([fold(raw) if n in foldable else raw for n, raw in enumerate(raws.texts)]) if foldable else raws


# --- rules over the folded copy ----------------------------------------------------------------------------------------

_B = r"[ ]{0,4}"
_SEPARATOR = rf"{_B}(?:[:：=|]|[】\]）)]{_B}[:：=]?|(?=[（(【\[])){_B}[（(【\[]?{_B}"
_NAME_LABEL = (
    r"(?:(?:患者|病人|受检者|被检者|住院患者|就诊人|母亲|父亲|联系人|监护人)?(?:姓名|名字|全名)|患者名|(?:患者|病人|受检者|被检者|就诊人|联系人|监护人|家属|陪同人)"
    r"|(?:初步|住院|主治|副主任|值班|书写|首诊|签发|复核|终审|初审|录入|记录|打印|摄片|投照|操作|报告|审核|诊断|检查|申请|送检|主管|经治|管床|上级|阅片|会诊|手术|麻醉|责任)+"
    r"(?:医师|医生|技师|护士|者|人员?|大夫)(?:签名|签字|姓名)?|医师|医生|主任|签名|签字|签章|技师|护士|撰写|书写|审核|复核|报告人"
    r"|Patient(?: name)?|Name|Nom(?: du patient)?|Patiente?|Radiologist|Radiologue|Doctor|(?-i:Dr))"
)
_BLANK_BEFORE_NAME = r"(?<=[\u4e00-\u9fff])[ ]{1,4}(?=[\u4e00-\u9fff]{2,4}(?:[ ,，;；。）)\n]|$))"
_NO_UNIT = r"(?![\d.×*]|mm|cm)"
_NUMBER_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])|(?<=\d) (?=\d(?: \d)+(?!\d|[.×xX*]|mm|cm))|(?<=\d{3}) (?=\d{3,}(?![\d.×xX*]|mm|cm|HU)))*"
_NOT_A_NUMBER = r"(?<![信图层序型代符牙级品诸])(?<!图像)"
_NUMBER_LABEL = (
    rf"(?:{_NOT_A_NUMBER}(?:号码|编号|号|ID|Id)|(?:条码|单号|卡号|流水|医保|社保|护照|证件|身份证)(?:号码?|编号|No\.?)?"
    r"|(?<![A-Za-z])(?:ID(?:号| ?No\.?| number)?|(?:Patient|Accession|Study|Hospital|Exam)[ ]?(?:ID|No|number)|MRN|PID))"
)
_ADDRESS_LABEL = r"(?:(?:家庭|联系|现|户籍|户口|通讯|通信|工作|常住|居住|家)?(?:住址|地址|居住地|所在地)|现住|家住|住于|工作单位|籍贯|户籍)"
_BIRTH_LABEL = r"(?:出生(?:日期|年月日?|时间|于|日)?|生日|生于|诞生|Date of birth|DOB|Born|Date de naissance)"
_PHONE_LABEL = (
    r"(?:(?:联系|家属|手机|固定|办公|家庭|宅|本人)?(?:电话|手机|座机|热线|传真|微信|QQ)(?:号码|号)?|联系方式|致电|拨打|来电|分机|内线|短号"
    r"|Tel(?:ephone)?|Phone|Mobile|T[ée]l(?:[ée]phone)?)"
)
_DATE = r"(?:\d{4}|\d{2})(?: ?[年./\-] ?\d{1,2}(?: ?[月./\-] ?\d{1,2} ?日?|月)?|\d{4})"
_PLACE = r"[\u4e00-\u9fff]"

RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("name", re.compile(rf"(?:{_NAME_LABEL})(?:{_SEPARATOR}|{_BLANK_BEFORE_NAME})(?P<value>{names.LABELLED_VALUE})", re.IGNORECASE)),
    ("name", re.compile(rf"姓名[为是叫]?{_B}(?P<value>{names.LABELLED_VALUE})")),
    ("name", names.AFTER_ROLE),
    ("name", names.BEFORE_TITLE),
    ("name", names.DOTTED),
    ("name", re.compile(r"(?<![A-Za-z])Dr\.? (?P<value>[A-Z][A-Za-z'’\-]+(?: [A-Z][A-Za-z'’\-]+){0,2})")),
    ("number", re.compile(rf"(?:{_NUMBER_LABEL})(?:{_SEPARATOR}|{_B}#{_B})(?P<value>{_NUMBER_VALUE})")),
    ("number", re.compile(rf"{_NOT_A_NUMBER}(?:号码|编号|号)(?:[为是]|{_B}[（(]|{_B})(?P<value>[A-Za-z]{{0,4}}-?\d(?:[ ]?\d){{3,20}}[A-Za-z]?){_NO_UNIT}")),
    ("number", re.compile(rf"(?<![A-Za-z])(?:ID|MRN|PID|No\.){_B}(?P<value>[A-Za-z]{{0,3}}\d{{4,20}})")),
    ("number", re.compile(r"(?<![\d.A-Za-z])(?P<value>[A-Za-z]{0,4}\d{9,24}[XxA-Za-z]?)(?![\d]|\.\d)")),
    ("number", re.compile(r"(?<![\d.])(?P<value>\d{6}[ -](?:\d{4}[ -]?\d{4}[ -]?\d{3}[\dXx]|\d{6}[ -]?\d{3})|\d(?: \d){14}(?:(?: \d){2} [\dXx])?)(?! ?[\d.])")),
    ("number", re.compile(r"(?<![\d.])(?P<value>\d{1,3}(?:\.\d{1,12}){5,20})(?![\d.]|mm|cm)")),
    ("bed", re.compile(rf"(?:床号|床位号?|病床|床){_B}(?:[:：=#】\]]{_B}[:：]?){_B}(?P<value>[+加]?[A-Za-z]?\d{{1,4}}(?:-\d{{1,3}})?)")),
    ("bed", re.compile(r"(?:床号|床位)[ ]?(?P<value>[+加]?[A-Za-z]?\d{1,4})")),
    ("bed", re.compile(r"(?<![\d.A-Za-z])(?P<value>[+加]?[A-Za-z]?\d{1,4}) ?床(?!旁)")),
    ("phone", re.compile(rf"(?:{_PHONE_LABEL})(?:{_SEPARATOR}|[为是至]|{_B})(?P<value>\+?\(?\d(?:[\d\-() （）]){{2,20}}\d)", re.IGNORECASE)),
    ("phone", re.compile(r"(?:微信|QQ|邮箱|E-?mail)(?:号码?)?[ ]?[:：]?[ ]?(?P<value>[A-Za-z0-9][\w.\-]{4,40})", re.IGNORECASE)),
    ("phone", re.compile(r"(?<![\d.])(?P<value>(?:[(（]?\+? ?86[)）]?[- ]?)?1[- ]?[3-9](?:[- ]?\d){9})(?!\d)")),
    ("phone", re.compile(r"(?<![\d.])(?P<value>1[3-9]\d\.\d{4}\.\d{4})(?!\d)")),
    ("phone", re.compile(r"(?<![\d.])(?P<value>[(（]?0\d{2,3}[)）]?[- ]?\d{3,4}[- ]?\d{4}(?:[-转]\d{1,6})?)(?![\d.])")),
    ("phone", re.compile(r"(?<![\d.])(?P<value>[48]00[- ]?\d{3}[- ]?\d{4})(?!\d)")),
    ("phone", re.compile(r"(?P<value>[A-Za-z0-9][\w.+\-]{0,63}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8})")),
    ("address", re.compile(rf"{_ADDRESS_LABEL}(?:{_SEPARATOR}|[为是在于]|{_B})(?P<value>[^\n,，;；。:：]{{2,60}})")),
    ("address", re.compile(
        rf"(?P<value>(?:{_PLACE}{{1,8}}?(?:省|自治区|市|自治州|州|县|区|旗|镇|乡|街道)){{0,5}}{_PLACE}{{1,10}}?(?:路|街|大道|巷|弄|村|小区|花园|社区|胡同)"
        rf"[\u4e00-\u9fffA-Za-z\d\-]{{0,16}}?\d{{1,5}}(?:-\d{{1,5}})*(?:(?:号楼?|栋|幢|弄|单元|室|组)(?:[\dA-Za-z\-]{{1,6}}(?:号楼?|栋|幢|单元|室|层|楼)?)*)+)"
    )),
    ("address", re.compile(rf"(?P<value>{_PLACE}{{2,7}}?(?:省|自治区|市)(?:(?![院医诊检示])[\u4e00-\u9fff]){{1,16}}(?:县|镇|乡|村|街道|小区|社区|路))")),
    ("birth", re.compile(rf"{_BIRTH_LABEL}(?:{_SEPARATOR}|{_B})(?P<value>{_DATE})", re.IGNORECASE)),
    ("birth", re.compile(rf"(?<!\d)(?P<value>{_DATE})(?:出生|生(?![长命理化存])|生人)")),
)  # fmt: skip
"""What is found where. Each rule needs something that `is_suspect` looks for: a test holds them to that."""

_TRIGGERS = """
" 姓名 名字 全名 患者 病人 检者 诊人 家属 家长 母亲 父亲 丈夫 妻子 配偶 儿子 女儿 本人 陪同 监护 联系 伤者 产妇 患儿
医师 医生 技师 护士 护师 主任 教授 大夫 院长 博士 先生 女士 小姐 同志 阿姨 老师 签名 签字 签章 撰写 书写 审核 复核
报告人 号码 编号 条码 单号 卡号 流水 医保 社保 护照 证件 身份证 床号 床位 病床 住址 地址 居住 所在地 现住 家住 住于
工作单位 籍贯 户籍 出生 生日 生于 诞生 日生 月生 生人 省 市 自治区 电话 手机 座机 热线 传真 微信 QQ qq Qq qQ
致电 拨打 来电 分机 内线 短号 邮箱 E-mail e-mail Email email EMAIL Name name NAME
Nom NOM Patient PATIENT patient Radiolog RADIOLOG radiolog Doctor
DOCTOR doctor Mobile mobile MOBILE Phone phone PHONE Tel tel TEL Tél
tél DOB dob Dob Born born BORN birth Birth BIRTH naissance Accession
Study Hospital Exam ID Id MRN PID No. Dr DR dr @ · • ‧ ・
"""


_COMMON = "检诊主大小病条居所出生月自分内短eIMPDmTSA"


def _suspect() -> re.Pattern[str]:
    """The triggers and forms as one expression of which every branch opens with another character: `re` skips over a text by a set of those.

    A word is looked for by its last character when its first is common in reports.
    """
    rests: dict[str, list[str]] = {}
    for word in _TRIGGERS.split():
        if word[0] in _COMMON:
            rests.setdefault(word[-1], []).append(f"(?<={re.escape(word)})")
        else:
            rests.setdefault(word[0], []).append(re.escape(word[1:]))
    forms = {
        "号": "(?<![信图层序型代符牙级品诸]号)(?<!图像号)",
        "床": "(?<!临床)",
        ":：=#|": "(?<![示见列断议现述象扫强查正告论他][:：=#|])",
        "】])）": "(?<=[名号者人师生士员签字章址位贯话机式籍][】\\]）)])",
    }
    for firsts, rest in forms.items():
        for first in firsts:
            rests.setdefault(first, []).append(rest)
    return re.compile("|".join(f"{re.escape(first)}(?:{'|'.join(found)})" for first, found in rests.items()))


_WORDS = _suspect()
_DIGITS = re.compile(r"[0-9](?:(?:[ .()（）\-]{0,2}[0-9]){6}|(?=[号楼栋幢弄室组生]|单元| ?床))")


def is_suspect(folded: str) -> bool:
    """Whether a folded text holds what every rule needs somewhere; one that does not, which is nearly every one, is not read again."""
    return _WORDS.search(folded) is not None or _DIGITS.search(folded) is not None


def suspects(folded: Together) -> set[int]:
    """Which of many folded texts `is_suspect`."""
    return folded.holding(_WORDS) | folded.holding(_DIGITS)


_LATIN = re.compile(r"[A-Za-z0-9]")
_FOUR_DIGITS = re.compile(r"[0-9](?:[ -]*[0-9]){3}")
_LAST_DIGITS = re.compile(r"[0-9]{4}(?=[^0-9]*\Z)")
_CARD_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

_HEADER_FIELD = (
    rf"(?:{_NAME_LABEL}|[\u4e00-\u9fff]{{0,4}}{_NUMBER_LABEL}|{_ADDRESS_LABEL}|{_BIRTH_LABEL}|{_PHONE_LABEL}|性别|年龄|科室|科别|病区|病室|床号|床位|送检科室|申请科室|"
    r"(?:检查|报告|审核|申请|登记|拍片|送检)(?:日期|时间)|检查(?:项目|部位|方法|设备|名称)|设备|临床诊断|病人来源|患者类型|医院|Sex|Age)"
)
_HEADER_LINE = re.compile(
    rf"^(?:{_HEADER_FIELD}{_B}[:：]{_B}[^\n:：]{{0,40}}?(?:{_B}(?=(?:{_HEADER_FIELD}){_B}[:：])|$))+$",
    re.IGNORECASE,
)
_OPENS_LIKE_A_HEADER = re.compile(r"[^:：\n]{1,24}[:：](?<![示见見列象][:：])")


def is_header_line(line: str) -> bool:
    """Whether a line, blanks around it left out, is nothing but labelled header fields, as some systems print above the findings."""
    if ":" not in line and "：" not in line:
        return False
    return _OPENS_LIKE_A_HEADER.match(line) is not None and _HEADER_LINE.match(fold(line)) is not None


def valid_card(number: str) -> bool:
    """Whether 18 characters are a resident identity number: birth date in range and the ISO 7064 MOD 11-2 check digit."""
    if not (len(number) == 18 and number[:17].isascii() and number[:17].isdigit()):
        return False
    if not ("1800" <= number[6:10] <= "2199" and "01" <= number[10:12] <= "12" and "01" <= number[12:14] <= "31"):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _CARD_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[17].upper()


def present(raws: Together, known: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    """Those of each record's own identifiers that may occur in its text, by the number of the text: mostly none, and then it need not be read for
    them. A record with several texts puts them in one, by line ends."""
    folded = all_folded(raws)
    numbered = folded.holding(_FOUR_DIGITS)
    found: dict[int, list[str]] = {}
    for number, (text, identifiers) in enumerate(zip(folded.texts, known, strict=True)):
        if number not in numbered:  # nor does it hold what ends in four digits
            identifiers = [
                each for each in identifiers if not ((last := each[-4:]).isdigit() and last.isascii() and len(each) > 3)
            ]
        if identifiers:
            compact = text.replace(" ", "").replace("-", "")
            if there := [each for each in identifiers if _anchor(each) in compact]:
                found[number] = there
    return found


def identifiers(raw: str, known: Sequence[str] = ()) -> Iterator[tuple[int, int, str]]:
    """(start, end, what) of each identifier in a text, in no order, possibly overlapping."""
    folded = fold(raw)
    if is_suspect(folded):
        yield from _by_rule(folded)
    if known:
        yield from _known(folded, known)


def _by_rule(folded: str) -> Iterator[tuple[int, int, str]]:
    for what, rule in RULES:
        for match in rule.finditer(folded):
            if match["value"].strip("-_ 某○*×Xx"):
                yield *match.span("value"), what


def _known(folded: str, known: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    compact = _compact(folded)
    for identifier in known:
        wanted = _wanted(identifier)
        if len(wanted) < 2 or wanted not in compact:
            continue  # one character would hit half the text
        for match in re.finditer("[ -]*".join(map(re.escape, wanted)), folded, re.IGNORECASE):
            if _whole(folded, *match.span()):
                yield *match.span(), "known"


def _anchor(identifier: str) -> str:
    """A piece of an identifier that is cheap to look for and the same in either case: some digits of it, a name without Latin letters, or nothing."""
    last = identifier[-4:]
    if last.isascii():
        if last.isdigit():
            return last
        digits = _LAST_DIGITS.search(identifier)
        return "" if digits is None else digits[0]
    wanted = _wanted(identifier)
    return "" if _LATIN.search(wanted) else wanted


@lru_cache(maxsize=4_096)
def _wanted(identifier: str) -> str:
    """What is looked for; the texts of one record ask for the same ones, one after another."""
    return _compact(fold(identifier)).strip()


def _compact(folded: str) -> str:
    return folded.lower().replace(" ", "").replace("-", "")


def _whole(text: str, start: int, end: int) -> bool:
    """Not a piece of a longer number or Latin word: the id 12 is not found inside 1.12, 2012 or 12mm; a long one may touch a word of another kind."""
    before, after = text[max(start - 1, 0) : start], text[end : end + 1]
    if before == "." and text[start].isdigit():
        return False
    return not _goes_on(before, text[start], end - start) and not _goes_on(text[end - 1], after, end - start)


def _goes_on(one: str, other: str, length: int) -> bool:
    if _LATIN.match(one) is None or _LATIN.match(other) is None:
        return False
    return length < 6 or one.isdigit() == other.isdigit()


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
    return replaced(raw, edits) if edits else identity(raw)
