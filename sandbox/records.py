"""A pretend report as each of the six hospitals writes it down: its own column names, code values and habits with times.

Pure: values in, one dictionary per row out. Where the rows go is `sandbox.stores`; how our product reads them back is in the institution
files under `schemas/`, which share nothing with this module but the meaning.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.facts import PretendReport

Record = dict[str, Any]
SHANGHAI = ZoneInfo("Asia/Shanghai")
LINE = 120
"""Longest line of text in the second table of house 4."""

_SYSTEM: Mapping[int, Mapping[str, str]] = {
    1: {"chest": "CHEST", "abdomen": "ABD", "musculoskeletal": "MSK", "head": "HEAD", "maxillofacial_neck": "NECK"},
    2: {
        "chest": "胸部",
        "abdomen": "腹部",
        "musculoskeletal": "骨肌",
        "head": "头颅",
        "maxillofacial_neck": "颌面颈部",
    },
    3: {
        "chest": "胸廓",
        "abdomen": "上腹",
        "musculoskeletal": "四肢脊柱",
        "head": "颅脑",
        "maxillofacial_neck": "颌面",
    },
    4: {
        "chest": "THORAX",
        "abdomen": "ABDOMEN",
        "musculoskeletal": "SPINE/EXTREMITY",
        "head": "HEAD",
        "maxillofacial_neck": "FACE-NECK",
    },
    5: {"chest": "胸部", "abdomen": "腹部", "musculoskeletal": "骨關節", "head": "頭顱", "maxillofacial_neck": "頜面"},
    6: {"chest": "XB", "abdomen": "FB", "musculoskeletal": "GJ", "head": "TL", "maxillofacial_neck": "HMJB"},
}
_MODALITY: Mapping[int, Mapping[str, str]] = {
    1: {"CT": "CT", "MR": "MR", "XR": "DR"},
    2: {"CT": "1", "MR": "2", "XR": "3"},
    3: {"CT": "CT", "MR": "磁共振", "XR": "X线"},
    4: {"CT": "CT", "MR": "MRI", "XR": "CR"},
    5: {"CT": "CT", "MR": "MR", "XR": "CR"},
    6: {"CT": "CT", "MR": "MR", "XR": "DX"},
}
_STATUS: Mapping[int, Mapping[str, Any]] = {
    1: {"preliminary": "preliminary", "final": "final", "addendum": "addendum", "retracted": "cancelled"},
    2: {"preliminary": 2, "final": 3, "addendum": 5, "retracted": 9},
    3: {"preliminary": "草稿", "final": "已审核", "addendum": "补充", "retracted": "作废"},
    4: {"preliminary": "P", "final": "F", "addendum": "C", "retracted": "W"},
    5: {"preliminary": "初稿", "final": "已簽發", "addendum": "補充", "retracted": "撤回"},
    6: {"preliminary": "0", "final": "1", "addendum": "3", "retracted": "2"},
}
_CLASS: Mapping[int, Mapping[str, str]] = {
    1: {"outpatient": "outpatient", "inpatient": "inpatient", "emergency": "emergency"},
    2: {"outpatient": "门诊", "inpatient": "住院", "emergency": "急诊"},
    3: {"outpatient": "门", "inpatient": "住", "emergency": "急"},
    4: {"outpatient": "O", "inpatient": "I", "emergency": "E"},
    5: {"outpatient": "門診", "inpatient": "住院", "emergency": "急診"},
    6: {"outpatient": "1", "inpatient": "2", "emergency": "3"},
}
_GRADE: Mapping[int, Mapping[str, str]] = {
    1: {"junior": "resident", "intermediate": "attending", "senior": "chief"},
    2: {"junior": "住院医师", "intermediate": "主治医师", "senior": "主任医师"},
    3: {"junior": "初级", "intermediate": "中级", "senior": "高级"},
    4: {"junior": "R", "intermediate": "A", "senior": "C"},
    5: {"junior": "住院醫師", "intermediate": "主治醫師", "senior": "主任"},
    6: {"junior": "1", "intermediate": "2", "senior": "3"},
}


def _coded(report: PretendReport, house: int) -> tuple[str, str, Any, str, str, str | None, str | None, str | None]:
    """Modality, body part, status, patient class, author's rank, reviewer, reviewer's rank, in the words of a house."""
    reviewer = report.reviewer if _verified(report) else None
    return (
        _MODALITY[house][report.modality],
        "+".join(_SYSTEM[house][system] for system in report.systems),
        _STATUS[house][report.status],
        _CLASS[house][report.patient_class],
        _GRADE[house][report.author.grade],
        reviewer.id if reviewer else None,
        reviewer.name if reviewer else None,
        _GRADE[house][reviewer.grade] if reviewer else None,
    )


def _verified(report: PretendReport) -> bool:
    return report.status != "preliminary"


def _local(moment: datetime) -> datetime:
    return moment.astimezone(SHANGHAI).replace(tzinfo=None, microsecond=0)


def house_1(report: PretendReport, modified: datetime) -> Record:
    """Clean names, plain codes, times with a zone."""
    modality, part, status, origin, rank, reviewer, _, reviewer_rank = _coded(report, 1)
    return {
        "accession_no": report.accession,
        "patient_id": report.person.id,
        "patient_name": report.person.name,
        "id_card": report.person.id_card,
        "phone": report.person.phone,
        "sex": report.sex,
        "age": report.age,
        "modality": modality,
        "body_region": part,
        "exam_item": report.exam_title,
        "patient_source": origin,
        "clinical_history": report.history,
        "findings": report.findings,
        "impression": report.impression,
        "status": status,
        "author_id": report.author.id,
        "author_title": rank,
        "reviewer_id": reviewer,
        "reviewer_title": reviewer_rank,
        "exam_time": report.examined_at,
        "report_time": report.reported_at,
        "sign_time": report.signed_at if _verified(report) else None,
        "updated_at": modified,
    }


def house_2(report: PretendReport, modified: datetime) -> Record:
    """Chinese names, number codes, ages with their unit, local times."""
    modality, part, status, origin, rank, reviewer, _, reviewer_rank = _coded(report, 2)
    return {
        "检查号": report.accession,
        "病人编号": report.person.id,
        "姓名": report.person.name,
        "性别": "女" if report.sex == "F" else "男",
        "年龄": f"{report.age}岁",
        "检查类型": modality,
        "部位": part,
        "检查项目": report.exam_title,
        "来源": origin,
        "病史": report.history,
        "影像所见": report.findings,
        "影像诊断": report.impression,
        "报告状态": status,
        "报告医师": report.author.id,
        "报告职称": rank,
        "审核医师": reviewer,
        "审核职称": reviewer_rank,
        "检查时间": _local(report.examined_at),
        "报告时间": _local(report.reported_at),
        "审核时间": _local(report.signed_at) if _verified(report) else None,
        "修改时间": _local(modified),
    }


def house_3(report: PretendReport, modified: datetime) -> Record:
    """One field for the whole text, dates with slashes; an unsigned report holds its description only."""
    modality, part, status, origin, rank, reviewer, _, reviewer_rank = _coded(report, 3)
    text = _titled("描述：", report.findings)
    if _verified(report):
        text += "\n" + _titled("结论：", report.impression)
    return {
        "检查流水号": report.accession,
        "病历号": report.person.id,
        "姓名": report.person.name,
        "性别代码": "2" if report.sex == "F" else "1",
        "年龄": str(report.age),
        "设备类型": modality,
        "检查部位": part,
        "检查名称": report.exam_title,
        "病人类别": origin[0],
        "临床诊断": report.history,
        "报告内容": text,
        "状态": status,
        "报告人": report.author.id,
        "报告人级别": rank,
        "审核人": reviewer,
        "审核人级别": reviewer_rank,
        "检查日期": _slashes(report.examined_at),
        "报告日期": _slashes(report.reported_at),
        "审核日期": _slashes(report.signed_at) if _verified(report) else None,
        "更新日期": _slashes(modified),
    }


def _titled(title: str, text: str) -> str:
    return text if text.startswith(title) else f"{title}\n{text}"


def house_4(report: PretendReport, modified: datetime) -> Record:
    """The first of two tables; `lines` makes the rows of the second."""
    modality, part, status, origin, rank, reviewer, _, reviewer_rank = _coded(report, 4)
    return {
        "id": f"R{report.accession}",
        "acc": report.accession,
        "pid": report.person.id,
        "sex": "FEMALE" if report.sex == "F" else "MALE",
        "age_years": report.age,
        "kind": modality,
        "part": part,
        "title": report.exam_title,
        "origin": origin,
        "indication": report.history,
        "state": status,
        "written_by": report.author.id,
        "written_rank": rank,
        "verified_by": reviewer,
        "verified_rank": reviewer_rank,
        "examined": report.examined_at,
        "written": report.reported_at,
        "verified": report.signed_at if _verified(report) else None,
        "touched": modified,
    }


def lines(report: PretendReport) -> list[tuple[str, str, int, str]]:
    """(report id, section, line, text) of house 4: both texts cut into lines of limited length."""
    return [
        (f"R{report.accession}", section, number, text[at : at + LINE])
        for section, text in (("F", report.findings), ("I", report.impression))
        for number, at in enumerate(range(0, len(text), LINE), 1)
    ]


def house_5(report: PretendReport, modified: datetime) -> Record:
    """Words instead of codes, in traditional script."""
    modality, part, status, origin, rank, reviewer, _, reviewer_rank = _coded(report, 5)
    return {
        "uid": f"5.{report.accession}",
        "order_no": report.accession,
        "chart_no": report.person.id,
        "gender": "女性" if report.sex == "F" else "男性",
        "age_text": f"{report.age}歲",
        "device": modality,
        "region": part,
        "exam_name": report.exam_title,
        "visit_kind": origin,
        "clinical_note": report.history,
        "finding": report.findings,
        "conclusion": report.impression,
        "state": status,
        "reporter": report.author.id,
        "reporter_rank": rank,
        "approver": reviewer,
        "approver_rank": reviewer_rank,
        "exam_at": report.examined_at,
        "report_at": report.reported_at,
        "approve_at": report.signed_at if _verified(report) else None,
        "modified_at": modified,
    }


def house_6(report: PretendReport, modified: datetime) -> Record:
    """Pinyin initials and text dates; doctors by name, since this house keeps no staff numbers."""
    modality, part, status, origin, rank, _, reviewer, reviewer_rank = _coded(report, 6)
    return {
        "jch": report.accession,
        "xh": 1,
        "brid": report.person.id,
        "brxm": report.person.name,
        "sfzh": report.person.id_card,
        "lxdh": report.person.phone,
        "brxb": "0" if report.sex == "F" else "1",
        "nl": f"{report.age:03d}Y",
        "jclx": modality,
        "jcbw": part,
        "jcxm": report.exam_title,
        "brly": origin,
        "bs": report.history,
        "yxbx": report.findings,
        "yxzd": report.impression,
        "bgzt": status,
        "bgys": report.author.name,
        "bgyszc": rank,
        "shys": reviewer,
        "shyszc": reviewer_rank,
        "jcsj": _digits(report.examined_at),
        "bgrq": _digits(report.reported_at)[:8],
        "bgsj": _digits(report.reported_at)[8:],
        "shsj": _digits(report.signed_at) if _verified(report) else None,
        "xgsj": _digits(modified),
    }


def _slashes(moment: datetime) -> str:
    return _local(moment).strftime("%Y/%m/%d %H:%M:%S")


def _digits(moment: datetime) -> str:
    return _local(moment).strftime("%Y%m%d%H%M%S")


RECORDS: Mapping[int, Callable[[PretendReport, datetime], Record]] = {
    1: house_1,
    2: house_2,
    3: house_3,
    4: house_4,
    5: house_5,
    6: house_6,
}
