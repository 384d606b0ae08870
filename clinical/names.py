"""Where the name of a person stands in running text: after what they are called, before a title, or joined by a middle dot.

Works on the folded copy (`clinical.deidentify.fold`): simplified characters, half-width letters and digits. Without a label a name is believed only
when it opens with a surname, holds no character that names rarely and reports often use, and ends where a name can end.
"""

from __future__ import annotations

import re

from clinical.lexicon import rows

__all__ = ["AFTER_ROLE", "BEFORE_TITLE", "DOTTED", "LABELLED_VALUE"]

_LINES = [row[0] for row in rows("surnames.txt")]
_SURNAME_OF_TWO = f"(?:{_LINES[1]})"
_SURNAME = f"(?:{_LINES[1]}|[{_LINES[0]}])"
_COMMON_GIVEN = f"[{_LINES[2]}]"
_NEVER_GIVEN = (
    "院科室侧部叶段区病痛影像见不未无了是检查诊断及与或等因肺肝胆脾肾脑骨椎胸腹盆颈腰"
    "腿膝肩足术后左右上下内外医师疼咳嗽肿瘤癌炎症位度行述次并就床者的"
)
_WORDS = (
    r"(?!于[外我本当入近昨今\d]|曾[经于有患在用做]|高[热血龄危年级]|全[身麻程科]|方[可能便才]|安[静置装排]|单[纯发独]|解[除剖释]|麻[醉痹]|温[和]"
    r"|金属|白[细血天]|黄疸|尚[可能]|关[节于]|车祸|强[烈迫制]|应[用激诊]|计划|向[前]|成[人年]|石膏|康复|包[括块]|施行|常[规年]|冷[汗]|申请|管[路]|甘油"
    r"|连续|经[治常]|万[一]|毕业|程度|史[及]|从事|温度|容易|家属|同[意前]|时[有而])"
)
"""Words that open like a surname and are none."""
_GIVEN = f"[^\\W\\d_a-zA-Z{_NEVER_GIVEN}]"
_PART = f"(?:(?![{_NEVER_GIVEN}])[\u3400-\u9fff]){{1,8}}"
_MASKED = "[某×＊*xX○]{1,3}"
_HAN = "[\u3400-\u9fff]"
_DOT = "[·•‧・．]"
_SHORT_NAME = f"{_WORDS}{_SURNAME}(?:{_GIVEN} ?{_GIVEN}|{_GIVEN}|{_MASKED})"
_END = r"(?=[ \t]*(?:[,，.。;；:：、()（）/|\n]|$|男|女|\d|[因于系诉的及与和之已现来自本需要由在同行]|家属|患者|病人|先生|女士|小姐|医[生师]|主任|护士|教授))"

AFTER_ROLE = re.compile(
    r"(?:患者|病人|受检者|家属|家长|母亲|父亲|丈夫|妻子|配偶|儿子|女儿|本人|陪同人|监护人|联系人|伤者|产妇|患儿)"
    rf"[ \t]*[,，:：(（]?[ \t]*(?P<value>{_PART}(?:{_DOT}{_PART}?){{1,3}}{_END}|{_SHORT_NAME}{_END}"
    rf"|{_WORDS}(?:{_SURNAME}{_COMMON_GIVEN}{{2}}|{_SURNAME_OF_TWO}{_COMMON_GIVEN})"
    rf"|{_HAN}{{1,3}}(?=[,，][ \t]*[男女][,，性]))"
)
"""患者王小明，; 家属李四诉; 病人 阿依·买买提,."""

_STAFF = r"(?:副?主任|主治|住院|经治|主管|值班|接诊|首诊|责任|管床)?(?:医师|医生|大夫|主任|教授|护士长?|护师|技师|院长|博士)|先生|女士|小姐|同志|阿姨|老师"
_BEFORE = r"(?:(?<=[科室区院部房组心知告给由与和及请经向为诉找系电诊班])|(?<![\u3400-\u9fff]))"
BEFORE_TITLE = re.compile(
    rf"{_BEFORE}(?P<value>{_PART}?(?:{_DOT}{_PART}?){{1,3}}|{_WORDS}{_SURNAME}(?:{_GIVEN}{{1,2}}|{_MASKED})?)(?=[ \t]?(?:{_STAFF}))"
)
"""急诊科孙医生, 请王小明主任, 李女士."""

DOTTED = re.compile(
    rf"(?<!{_HAN})(?!(?:{_HAN}|[·•‧・])*[征病症瘤氏法])(?P<value>{_PART}(?:[·•‧・]{_PART}){{1,3}})(?!{_HAN})"
)
"""A name of Uyghur, Tibetan or Kazakh form that stands alone; 法洛·四联症 is none."""

LABELLED_VALUE = (
    rf"(?:{_PART}(?:{_DOT}{_PART}){{1,3}}"
    rf"|{_HAN}(?:[ \t]{{1,3}}{_HAN}){{1,3}}(?=[ \t]*(?:[,，;；。、(（)）|\n\]】]|$|性别|年龄|\d)|[ \t]+(?:男|女))"
    rf"|{_HAN}(?:{_HAN}|{_MASKED}|[某×*○]){{0,7}}?(?=[ \t]*(?:[,，;；。、(（)）|/\n\]】]|$|性别|年龄|男|女|\d)|[ \t])"
    r"|[A-Z][A-Za-z.'’\-]+(?:[ ,]+[A-Z][A-Za-z.'’\-]+){0,3})"
)
"""What may stand behind 姓名：; any characters, since the label vouches for it."""
