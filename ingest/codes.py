"""What a value of a few different ones means: codes by the mapping's lists, ages in whatever unit. Each is worked out once and remembered."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ingest.reasons import Reason, Wrong

T = TypeVar("T")
_AGE = re.compile(
    r"0*(\d{1,3})(?:\.\d+)?\s*(岁|歲|周岁|Y(?:RS?|EARS?)?|年|个月|個月|月|M(?:OS?|ONTHS?)?|周|週|W(?:EEKS?)?|天|日|D(?:AYS?)?|小时|小時|H(?:OURS?)?)?(?:.*月|.*天)?",
    re.IGNORECASE,
)


class Memo(dict[Any, Any]):
    """What a value means, worked out once for each distinct value."""

    MOST = 100_000

    def __init__(self, meaning: Callable[[Any], Any]) -> None:
        super().__init__()
        self._meaning, self._refuses = meaning, False

    def __missing__(self, value: Any) -> Any:
        found = self[value] = self._meaning(value)
        self._refuses = self._refuses or isinstance(found, Wrong)
        return found

    def column(self, values: Sequence[Any], wrong: dict[int, Wrong]) -> list[Any]:
        """The meaning of each value; those that have none are refused in `wrong`."""
        if len(self) > self.MOST:
            self.clear()
        found = list(map(self.__getitem__, values))
        if self._refuses and Wrong in set(map(type, found)):
            for index, meaning in enumerate(found):
                if isinstance(meaning, Wrong):
                    wrong.setdefault(index, meaning)
        return found


def coded(codes: dict[str, T], value: str | None, reason: Reason, word: str) -> T | Wrong:
    found = codes.get((value or "").strip())
    return Wrong(reason, {"column": word}) if found is None else found


def optional(
    codes: dict[str, T], unknown: T | None, reason: Reason, word: str
) -> Callable[[str | None], T | Wrong | None]:
    """What a code means; `unknown` where there is none."""

    def meaning(value: str | None) -> T | Wrong | None:
        if not value or not value.strip():
            return unknown
        found = coded(codes, value, reason, word)
        return found

    return meaning


def same(value: str | None) -> str | None:
    return value and (value.strip() or None)


def nothing(value: str | None) -> None:
    return None


def years(value: str | None) -> int | Wrong | None:
    """Years from `45`, `45岁`, `045Y`, `45 years`, `8月`; what is younger than a year is 0."""
    value = same(value)
    if value is None:
        return None
    found = _AGE.fullmatch(value)
    if found is None:
        return Wrong(Reason.BAD_AGE, {"column": "age"})
    number, unit = int(found[1]), (found[2] or "岁").upper()
    years = (
        number // 12
        if unit in ("个月", "個月", "月") or unit.startswith("M")
        else number
        if unit in ("岁", "歲", "周岁", "年") or unit.startswith("Y")
        else 0
    )
    return Wrong(Reason.BAD_AGE, {"column": "age"}) if years > 150 else years
