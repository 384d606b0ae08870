"""Invented people: patients with well-formed identifiers that belong to nobody, and each house's doctors.

Names are made of common surnames and given names that say what they are (虚, 样, 演 ...); identity cards use region 990000,
which is not assigned, with a valid MOD 11-2 check digit; phones use an exchange of zeros.
"""

from functools import cache
from random import Random

from sandbox.facts import Doctor, Grade, Language, Person, Sex
from sandbox.script import traditional

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯董萧"
_GIVEN = "虚样演拟仿试例"
_LAST = "一二三安平和文明远清宁言华东南西北春秋"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"
_YEAR = 2022


def id_card(birth: str, order: int) -> str:
    """An 18-character identity card number (GB 11643) for a birth date `YYYYMMDD` and an order code of 0 to 999."""
    body = f"990000{birth}{order:03d}"
    return body + _CHECK[sum(int(digit) * weight for digit, weight in zip(body, _WEIGHTS, strict=True)) % 11]


def name(rng: Random, language: Language) -> str:
    """A name of three characters."""
    chosen = rng.choice(_SURNAMES) + rng.choice(_GIVEN) + rng.choice(_LAST)
    return traditional(chosen) if language == "zh-Hant" else chosen


def age(rng: Random) -> int:
    """Years: mostly adults around 55, some children; 0 to 103."""
    if rng.random() < 0.07:
        return int(rng.random() * 18)
    return min(103, max(18, round(rng.gauss(56, 17))))


def person(rng: Random, id_: str, sex: Sex, years: int, language: Language) -> Person:
    """A patient of the given sex and age; some lack the card or the phone, as records do."""
    birth = f"{max(_YEAR - years, 1900)}{1 + int(rng.random() * 12):02d}{1 + int(rng.random() * 28):02d}"
    order = int(rng.random() * 500) * 2 + (sex == "M")
    card = id_card(birth, order) if rng.random() < 0.85 else None
    phone = f"1990000{int(rng.random() * 10000):04d}" if rng.random() < 0.8 else None
    return Person(id_, name(rng, language), card, phone, sex, years)


@cache
def doctors(house: int, language: Language) -> dict[Grade, tuple[Doctor, ...]]:
    """The radiologists of a house by grade; the same for every seed."""
    rng = Random(f"doctors|{house}")
    staff: dict[Grade, tuple[Doctor, ...]] = {}
    grades: tuple[tuple[Grade, int], ...] = (("junior", 6), ("intermediate", 5), ("senior", 4))
    number = 0
    for grade, count in grades:
        members = []
        for _ in range(count):
            number += 1
            members.append(Doctor(f"D{house}{number:03d}", name(rng, language), grade))
        staff[grade] = tuple(members)
    return staff
