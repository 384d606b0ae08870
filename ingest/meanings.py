"""What the values of a stranger's code column mean: statuses, sexes, modalities, body systems. Whatever is not sure says so."""

import re
from collections import Counter
from dataclasses import dataclass

from clinical.case import Modality, Sex, System, systems_of
from core.states import ReportStatus
from ingest.writing import plain

_STATUS = (
    (re.compile(r"(取消|撤销|撤回|反)(审|签|发布)"), ReportStatus.UNSIGNED),
    (re.compile(r"作废|撤销|撤回|删除|取消|召回|retract|withdrawn|cancel|delet|void|^x$"), ReportStatus.RETRACTED),
    (re.compile(r"未|待|草|初步|初稿|初审|暂|书写|编辑|中$|退回|驳回|打回|提交|登记|预约|检查|拍片"
                r"|prelim|draft|pending|progress|unsigned|unapproved|unverif|^p$|^i$"), ReportStatus.PRELIMINARY),
    (re.compile(r"补充|更正|修正|修订|修改|追加|amend|correct|addend|^c$|^a$"), ReportStatus.AMENDED),
    (re.compile(r"审|终|签|发布|完成|已报告|打印|final|approve|verif|sign|complete|released|^f$"), ReportStatus.FINAL),
)  # fmt: skip
"""What stands further up counts first: 取消审核 is no 审核, and 审核中 is none yet."""
_YES = {"是": ReportStatus.FINAL, "y": ReportStatus.FINAL, "yes": ReportStatus.FINAL, "true": ReportStatus.FINAL,
        "否": ReportStatus.PRELIMINARY, "n": ReportStatus.PRELIMINARY, "no": ReportStatus.PRELIMINARY, "false": ReportStatus.PRELIMINARY}  # fmt: skip
"""What the answers to "is it verified?" may mean."""
_SEXES = (
    (re.compile(r"男性?|m|male|1|man"), Sex.M),
    (re.compile(r"女性?|f|female|2|woman"), Sex.F),
    (re.compile(r"未知|不详|未说明|不明|u|unknown|0|9"), Sex.U),
    (re.compile(r"其他|其它|o|other"), Sex.O),
)
_MODALITIES = (
    (re.compile(r"pet|ect|spect|核医学|dsa|超声|^us|内镜|钼靶|^mg|乳腺x|^es$|^nm$|病理|心电|胃肠"), Modality.OT),
    (re.compile(r"mr|磁共振|核磁"), Modality.MR),
    (re.compile(r"ct|计算机断层|断层"), Modality.CT),
    (re.compile(r"dr|cr|dx|x线|x光|xr|平片|普放|拍片|放射|^rf|^x$"), Modality.XR),
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one value of a code column means; None when we cannot say."""

    value: str
    count: int
    means: str | None
    sure: bool


def status_meanings(values: Counter[str]) -> list[Meaning]:
    """What status codes mean. Where they are bare numbers only the commonest is guessed to be final, and nothing is sure."""
    found = [Meaning(value, count, *status_of(value)) for value, count in values.most_common()]
    if found and not any(each.means == ReportStatus.FINAL for each in found):
        first = next((each for each in found if each.means is None), None)
        return [Meaning(each.value, each.count, ReportStatus.FINAL, False) if each is first else each for each in found]
    return found


def sex_meanings(values: Counter[str]) -> list[Meaning]:
    """What sex codes mean. Numbers follow GB/T 2261.1 (1 male, 2 female, 0 unknown, 9 unstated), which 0 and 1 alone contradict."""
    contradicted = "0" in values and "2" not in values
    return [
        Meaning(value, count, means, sure and not (contradicted and value in ("0", "1")))
        for value, count in values.most_common()
        for means, sure in [sex_of(value)]
    ]


def modality_meanings(values: Counter[str]) -> list[Meaning]:
    """What modality codes mean; whatever is not one of the paper's two or plain X-ray is OT."""
    return [Meaning(value, count, *modality_of(value)) for value, count in values.most_common()]


def system_meanings(values: Counter[str]) -> list[Meaning]:
    """What codes of body systems mean: our own words, or a word that names one system only."""
    return [Meaning(value, count, *system_of(value)) for value, count in values.most_common()]


def status_of(value: str) -> tuple[str | None, bool]:
    text = plain(value)
    for pattern, means in _STATUS:
        if pattern.search(text):
            return means, True
    return _YES.get(text), False


def sex_of(value: str) -> tuple[str | None, bool]:
    text = plain(value)
    for pattern, means in _SEXES:
        if pattern.fullmatch(text):
            return means, True
    return None, False


def system_of(value: str) -> tuple[str | None, bool]:
    if value in tuple(System):
        return value, True
    found = systems_of(value)
    return (found[0].value, False) if len(found) == 1 else (None, False)


def modality_of(value: str) -> tuple[str | None, bool]:
    text = plain(value)
    for pattern, means in _MODALITIES:
        if pattern.search(text):
            return means, True
    return None, False
